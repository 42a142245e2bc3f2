"""The training loop around its parts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from main import main

# Ten environment steps per call of the runner.
QUICK = ["batch_size_run=2", "final_nepisode=2", "test_nepisode=0", "env_args.episode_limit=5"]


def test_a_continued_run_saves_at_its_interval_from_where_it_starts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["with", *QUICK, "t_max=60", f"local_results_path={first}"]) == 0
    saved = next(first.glob("sacred/*/*/1/checkpoints/60"))
    go_on = ["t_max=120", "save_model_interval=30", f"checkpoint_path={saved}"]
    assert main(["with", *QUICK, *go_on, f"local_results_path={second}"]) == 0
    found = {path.name for path in second.glob("sacred/*/*/1/checkpoints/*")}
    assert found == {"90", "120"}
    # A run's folder stands for its newest checkpoint.
    of_run = ["t_max=150", f"checkpoint_path={next(second.glob('sacred/*/*/1'))}"]
    assert main(["with", *QUICK, *of_run, f"local_results_path={tmp_path / 'third'}"]) == 0
    assert [path.name for path in tmp_path.glob("third/sacred/*/*/1/checkpoints/*")] == ["150"]
    assert json.loads(next(tmp_path.glob("third/sacred/*/*/1/summary.json")).read_text())["env_steps"] == 150


def test_a_checkpoint_of_another_optimizer_or_beyond_t_max_is_refused_and_an_evaluation_lacks_no_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    game = ["--config=qmix", "--env-config=matrix_game", "with", "batch_size_run=2", "test_nepisode=0", "batch_size=2"]
    game += ["final_nepisode=2", "replay_nepisode=0", "episodes_per_update=2", f"local_results_path={tmp_path}"]
    assert main([*game, "t_max=40"]) == 0
    saved = f"checkpoint_path={next(tmp_path.glob('sacred/*/*/1/checkpoints/40'))}"
    capsys.readouterr()
    assert main([*game, "t_max=80", saved, "optimizer=adam"]) == 2
    assert "the checkpoint is of another optimizer than this run's" in capsys.readouterr().err
    assert main([*game, "t_max=40", saved]) == 2
    assert "the checkpoint has 40 env steps already" in capsys.readouterr().err
    assert main([*game, "evaluate=true", saved]) == 0
    assert "no update was due" not in capsys.readouterr().err
    assert main([*game, "t_max=80", saved, "lr=0.0007", "batch_size_run=4"]) == 0


@pytest.mark.parametrize(
    ("config", "override", "lack"),
    [
        ("iql", "batch_size=16", "no update was due: it waits for 16 episodes"),
        ("hsd_in_games", "decoder_episodes=40", "the decoder was not trained: it waits for 40 episodes"),
        ("rode", "role_action_spaces_update_start=40", "no roles were made: they wait for 40 env steps"),
    ],
)
def test_a_run_too_short_to_learn_says_so(
    config: str, override: str, lack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for t_max in (8, 64):
        given = [f"t_max={t_max}", "batch_size=4", override, "test_nepisode=1", "final_nepisode=1", "replay_nepisode=0"]
        given += ["test_interval=1000", f"local_results_path={tmp_path}"]
        assert main([f"--config={config}", "--env-config=matrix_game", "with", *given]) == 0
        assert (f"in 8 env steps {lack}" in capsys.readouterr().err) == (t_max == 8)


@pytest.mark.parametrize(("config", "size"), [("maddpg", "batch_size"), ("lpmarl", "batch_size_low")])
def test_a_batch_larger_than_the_memory_is_told_with_its_key(
    config: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*QUICK, "t_max=200", "warmup_episodes=1", f"{size}={10**14}", f"local_results_path={tmp_path}"]
    assert main([f"--config={config}", "with", *given]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"needs more memory than there is: use .*{size} < 100000000000000, smaller networks", said)
    assert "Traceback" not in said
