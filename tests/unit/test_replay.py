"""Replays: what is recorded, what stands behind an assignment, the page's text, and the command's faults."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.replays import played, small_config, two_policies
from support.small_runs import fingerprint
from support.task_states import episode_of, random_state, small_controller, task_info
from support.worlds import OneWorld

from commands.replay import main
from components.checkpoint import save_checkpoint
from components.episode_buffer import EpisodeBatch
from components.errors import UserError
from components.global_random import global_rng_state
from controllers.base import Clock
from envs.base import derive_seeds
from envs.vector import SerialEnvs, in_process
from modules.assignment import make_problem, solve
from parts import Parts, build
from replays import REPLAY_SEEDS, write_replay
from reports.embedding import page_with_data
from reports.replay_page import replay_page, write_replay_page
from runners.episode_runner import EpisodeRunner

START = Clock(0, 0, 1000)
POLICIES = ("lp", "lp_distance")


def at(changes: list[list[Any]], t: int) -> Any:
    return [row for start, row in changes if start <= t][-1]


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    return two_policies(6)


def greedy_episodes(parts: Parts) -> EpisodeBatch:
    return EpisodeRunner(parts.test.envs, parts.controller, parts.test.fields).collect(START, test_mode=True).batch


@pytest.mark.parametrize("policy", POLICIES)
def test_solving_the_explained_scores_gives_the_recorded_assignment(policy: str) -> None:
    parts = build(small_config(f"high_policy={policy}", "test_nepisode=20", "env_args.n_agents=7"))
    batch = greedy_episodes(parts)
    explained = parts.controller.explain(batch)
    decided = batch["decide"].squeeze(-1).numpy() == 1
    assert decided.sum() > 60, "several decisions in an episode"
    solution = solve(make_problem(explained["scores"][decided], batch["capacity"].numpy()[decided]))
    assert np.array_equal(solution.index, batch["assign"].squeeze(-1).numpy()[decided])
    for values in explained.values():
        assert np.isnan(values[~decided]).all()
    assert not np.isnan(explained["scores"][decided]).any()
    parts.close()


def test_the_explained_prices_prove_the_assignment_optimal() -> None:
    parts = build(small_config("test_nepisode=20"))
    batch = greedy_episodes(parts)
    explained = parts.controller.explain(batch)
    decided = batch["decide"].squeeze(-1).numpy() == 1
    scores, prices = explained["scores"][decided], explained["prices"][decided]
    assign, capacity = batch["assign"].squeeze(-1).numpy()[decided], batch["capacity"].numpy()[decided]
    value = np.take_along_axis(scores, assign[..., None], -1).sum((1, 2))
    bound = (scores - prices[:, None]).max(-1).sum(1) + (prices * capacity).sum(1)
    assert (prices >= 0).all()
    assert (prices > 0).any()
    assert bound == pytest.approx(value)
    parts.close()


def test_the_explained_regrets_and_margins_are_those_of_solving_again() -> None:
    parts = build(small_config("test_nepisode=3"))
    batch = greedy_episodes(parts)
    explained = parts.controller.explain(batch)
    decided = batch["decide"].squeeze(-1).numpy() == 1
    scores, losses = explained["scores"][decided], explained["regrets"][decided]
    capacity, assign = batch["capacity"].numpy()[decided], batch["assign"].squeeze(-1).numpy()[decided]
    best = solve(make_problem(scores, capacity)).value
    for i, j in itertools.product(range(5), range(3)):
        pairs = np.ones(scores.shape, np.bool_)
        pairs[:, i] = np.arange(3) == j
        # A task without places takes nobody.
        able = capacity[:, j] > 0
        forced = solve(make_problem(scores[able], capacity[able], pair_mask=pairs[able])).value
        assert losses[able, i, j] == pytest.approx(best[able] - forced, abs=1e-12)
        assert np.isinf(losses[~able, i, j]).all()
    shift = np.random.default_rng(0).choice([-1.0, 1.0], scores.shape)
    near = scores + 0.999 * explained["margin"][decided][:, None, None] * shift
    assert np.array_equal(solve(make_problem(near, capacity)).index, assign)
    parts.close()


@pytest.mark.parametrize("policy", ["greedy", "random_feasible"])
def test_policies_that_maximize_no_scores_explain_nothing(policy: str) -> None:
    panel = played(small_config(f"high_policy={policy}"), 2)
    assert panel["assigns"]
    assert all("scores" not in decision for episode in panel["episodes"] for decision in episode["decisions"])


def test_capacities_that_a_rule_raised_are_told_and_only_those() -> None:
    info = task_info(4, 2)
    controller = small_controller(info, capacity_rule="relax", redecide="start")
    seen = random_state(3, 4, 2)
    batch = episode_of(info, controller, seen, 4)
    batch.data["decide"][:, 0] = 1
    assert "allowed" not in controller.explain(batch)
    batch.data["capacity"][1] = 1
    allowed = controller.explain(batch)["allowed"]
    assert allowed[1, 0].tolist() == [2, 2]
    assert allowed[0, 0].tolist() == [4, 4]


def test_a_panel_is_the_episodes_that_were_played(panels: list[dict[str, Any]]) -> None:
    panel = panels[0]
    parts = build(small_config("high_policy=lp", "test_nepisode=6"))
    seeds = derive_seeds(1, REPLAY_SEEDS, 6)
    envs = in_process("constrained_navigation", small_config().parts["env"], seeds, (*parts.test.envs.observation,))
    batch = EpisodeRunner(envs, parts.controller, parts.test.fields).collect(START, test_mode=True).batch
    for b, episode in enumerate(panel["episodes"]):
        length = int(batch.lengths()[b])
        assert episode["length"] == length
        shown = np.array(episode["agents"]).reshape(length + 1, 5, 2)
        assert shown == pytest.approx(batch["agent_feats"][b, : length + 1, :, :2].numpy(), abs=6e-4)
        for t in range(length):
            assert at(episode["assign"], t) == batch["assign"][b, t, :, 0].tolist()
            own = batch["task_reward"][b, t].gather(1, batch["assign"][b, t])[:, 0]
            assert episode["earned"][t] == pytest.approx(own.tolist(), rel=1e-3)
        assert [decision["t"] for decision in episode["decisions"]] == list(range(0, length, 10))
        assert episode["return"] == pytest.approx(float(batch["reward"][b].sum()), rel=1e-3)
    parts.close()


def test_a_panel_is_plain_json_without_nan(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert json.loads(json.dumps(panel, allow_nan=False)) == panel


def test_both_policies_start_from_the_same_states_of_a_stream_of_their_own(panels: list[dict[str, Any]]) -> None:
    for mine, other in zip(panels[0]["episodes"], panels[1]["episodes"], strict=True):
        assert mine["agents"][0] == other["agents"][0]
        assert mine["tasks"] == other["tasks"]
        assert mine["capacity"] == other["capacity"]
    seeds = [set(derive_seeds(1, stream, 50)) for stream in range(3)]
    assert not seeds[REPLAY_SEEDS] & (seeds[0] | seeds[1])


def test_lp_distance_agrees_with_the_least_distance_of_its_own_states(panels: list[dict[str, Any]]) -> None:
    for episode in panels[1]["episodes"]:
        for decision in episode["decisions"]:
            assert at(episode["assign"], decision["t"]) == decision["least_distance"]


def test_more_episodes_begin_with_the_same_ones(panels: list[dict[str, Any]]) -> None:
    fewer = played(small_config("high_policy=lp_distance"), 2)
    assert [episode["agents"][0] for episode in fewer["episodes"]] == [
        episode["agents"][0] for episode in panels[1]["episodes"][:2]
    ]


def test_a_policy_without_tasks_is_recorded_too() -> None:
    panel = played(small_config(algorithm="qmix"), 3)
    assert panel["title"] == "qmix"
    assert not panel["assigns"]
    assert all(episode["decisions"] == [] and "assign" not in episode for episode in panel["episodes"])
    assert panel["task_radius"] == 0.2
    assert panel["agent_radius"] == 0.05


def test_single_environments_are_recorded_like_batched_ones(
    panels: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def single(_name: str, options: Any, seeds: list[int], fields: tuple[str, ...]) -> SerialEnvs:
        return SerialEnvs([OneWorld(options, seed) for seed in seeds], seeds, fields)

    monkeypatch.setattr("replays.in_process", single)
    assert played(small_config("high_policy=lp"), 6) == panels[0]


def test_an_environment_without_tasks_has_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        played(small_config(algorithm="qmix", env="two_step_game"), 2)


def test_no_text_can_end_the_script_that_holds_the_data(panels: list[dict[str, Any]]) -> None:
    title = "</script><!-- \u2028 <b>"
    page = replay_page([panels[0] | {"title": title}])
    assert page.count("</script>") == replay_page(panels[:1]).count("</script>")
    assert "\u2028" not in page
    assert data_of(page)["panels"][0]["title"] == title


def test_the_page_loads_nothing_and_forbids_it(panels: list[dict[str, Any]]) -> None:
    page = page_with_data("replay.html", {})
    assert "default-src 'none'" in page
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\"' ]+", page) == []


def test_policies_that_play_other_episodes_are_not_put_side_by_side(panels: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="seed: 1 and 2"):
        replay_page([panels[0], panels[1] | {"seed": 2}])
    moved = json.loads(json.dumps(panels[1]))
    moved["episodes"][2]["agents"][0][0] += 0.1
    with pytest.raises(UserError, match="episode 2 starts from another state"):
        replay_page([panels[0], moved])


def test_only_a_replay_page_is_overwritten(panels: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_replay_page(path, panels[:1])
    write_replay_page(path, panels)
    assert len(data_of(path.read_text())["panels"]) == 2
    path.write_text("<!doctype html>my notes")
    with pytest.raises(UserError, match="is not a page of this command: it is not overwritten"):
        write_replay_page(path, panels)
    assert path.read_text() == "<!doctype html>my notes"
    with pytest.raises(UserError, match="there is no folder"):
        write_replay_page(tmp_path / "nowhere" / "page.html", panels)


def test_a_run_writes_its_page_and_is_not_changed_by_it(tmp_path: Path) -> None:
    config = small_config("replay_nepisode=2", "high_policy=random_feasible")
    parts = build(config)
    torch.manual_seed(5)
    before = fingerprint(parts.state_dict(with_buffer=False)), fingerprint(global_rng_state())
    path = write_replay(tmp_path, parts, START, config)
    assert (fingerprint(parts.state_dict(with_buffer=False)), fingerprint(global_rng_state())) == before
    assert path == tmp_path / "replay.html"
    shown = data_of(path.read_text())["panels"]
    assert [panel["title"] for panel in shown] == ["lpmarl (random_feasible)", "lpmarl (lp_distance)"]
    assert [len(panel["episodes"]) for panel in shown] == [2, 2]
    parts.close()


@pytest.mark.parametrize(
    ("algorithm", "env", "override"),
    [("qmix", "two_step_game", "replay_nepisode=2"), ("lpmarl", "constrained_navigation", "replay_nepisode=0")],
)
def test_a_run_without_anything_to_draw_writes_no_page(algorithm: str, env: str, override: str, tmp_path: Path) -> None:
    config = small_config(override, algorithm=algorithm, env=env)
    parts = build(config)
    assert write_replay(tmp_path, parts, START, config) is None
    assert list(tmp_path.iterdir()) == []
    parts.close()


def saved(folder: Path, *overrides: str, algorithm: str = "lpmarl", env: str = "constrained_navigation") -> Path:
    """A checkpoint of an untrained run."""
    config = small_config(*overrides, algorithm=algorithm, env=env)
    parts = build(config)
    position = {"env_steps": 700, "episodes": 7}
    meta = {"algorithm": config.run.name, "env": env, "seed": config.run.seed, "config": config.values}
    save_checkpoint(folder, parts.state_dict(with_buffer=False) | {"position": position}, meta)
    parts.close()
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("replay") / "model")


def shown(page: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(page.read_text())["panels"]
    return found


def test_the_command_puts_the_reference_beside(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main([str(checkpoint), "--episodes", "2", "--seed", "9"])
    assert capsys.readouterr().out.strip() == "replay.html"
    found = shown(tmp_path / "replay.html")
    assert [(panel["title"], panel["seed"], panel["env_steps"], len(panel["episodes"])) for panel in found] == [
        ("lpmarl (lp)", 9, 700, 2),
        ("lpmarl (lp_distance)", 9, 700, 2),
    ]


def test_a_run_folder_gets_the_page(tmp_path: Path) -> None:
    saved(tmp_path / "1" / "checkpoints" / "700")
    (tmp_path / "1" / "config.json").write_text("{}")
    for path in ("1", "1/checkpoints/700"):
        main([str(tmp_path / path), "--episodes", "1", "--alone"])
        (tmp_path / "1" / "replay.html").unlink()


def test_another_policy_or_checkpoint_stands_beside(checkpoint: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    common = [str(checkpoint), "--episodes", "1", "--output", str(page)]
    main([*common, "--beside", "high_policy=random_feasible", "redecide=start"])
    assert [panel["title"] for panel in shown(page)] == ["lpmarl (lp, every_k)", "lpmarl (random_feasible, start)"]
    flat = saved(tmp_path / "flat", "seed=4", algorithm="qmix")
    main([*common, "--against", str(flat)])
    assert [(panel["title"], panel["seed"]) for panel in shown(page)] == [("lpmarl (lp)", 1), ("qmix", 1)]
    main([*common, "--against", str(checkpoint)])
    titles = [panel["title"] for panel in shown(page)]
    assert all(title.endswith("model") for title in titles)
    main([*common, "with", "env_args.n_agents=6", "env_args.n_landmarks=4"])
    assert [(panel["n_agents"], panel["n_tasks"]) for panel in shown(page)] == [(6, 4), (6, 4)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "at least one"),
        (["--episode", "3"], "unrecognized arguments"),
        (["--alone", "--beside", "high_policy=greedy"], "not allowed with argument"),
        (["--video", "film.avi"], r"must end in \.mp4 or \.gif"),
        (["--beside", "high_polisy=greedy"], "high_polisy"),
        (["--against", "nowhere"], "nowhere"),
        (["--output", "nowhere/page.html"], "there is no folder"),
        (["--beside", "env_args.agent_radius=0.1"], "env_args"),
    ],
)
def test_the_commands_faults_are_told(checkpoint: Path, words: list[str], message: str, tmp_path: Path) -> None:
    output = [] if "--output" in words else ["--output", str(tmp_path / "page.html")]
    with pytest.raises(UserError, match=message):
        main([str(checkpoint), *words, *output])
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_what_has_no_tasks(tmp_path: Path) -> None:
    flat = saved(tmp_path / "flat", algorithm="qmix", env="two_step_game")
    with pytest.raises(UserError, match="nothing to draw"):
        main([str(flat), "--output", str(tmp_path / "page.html")])


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_video_shows_every_step(checkpoint: Path, ending: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    film = tmp_path / f"film.{ending}"
    words = ["--episodes", "1", "--output", str(tmp_path / "page.html"), "--video", str(film)]
    main([str(checkpoint), *words, "with", "env_args.episode_limit=5"])
    frames, _ = ffmpeg.count_frames_and_secs(str(film))
    lengths = [panel["episodes"][0]["length"] for panel in shown(tmp_path / "page.html")]
    assert frames == max(lengths) + 6, "the last state stays for six frames"
    with pytest.raises(UserError, match="not overwritten"):
        main([str(checkpoint), *words])


@pytest.mark.parametrize("algorithm", ["qmix", "qplex"])
def test_the_weight_of_each_agent_in_the_mixer_is_told(algorithm: str) -> None:
    panel = played(small_config(algorithm=algorithm), 2)
    for episode in panel["episodes"]:
        assert set(episode["internals"]) == {"Q_i", "dQ_tot / dQ_i"}
        assert len(episode["internals"]["Q_i"]) == episode["length"]
        assert all(len(row) == 5 and min(row) >= 0 for row in episode["internals"]["dQ_tot / dQ_i"])


def test_nothing_is_told_of_absent_agents() -> None:
    panel = played(small_config("env_args.min_agents=3", "env_args.min_landmarks=3", algorithm="qmix"), 6)
    absent = 0
    for episode in panel["episodes"]:
        alive = np.array(episode["agent_alive"][0][1], dtype=np.bool_)
        told = np.array(episode["internals"]["Q_i"], dtype=np.float64)
        assert (np.isnan(told) == ~alive).all()
        absent += int((~alive).sum())
    assert absent > 0


def test_the_command_loads_the_mixer_that_the_page_tells_of(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", algorithm="qmix")
    config = small_config(algorithm="qmix", env="constrained_navigation")
    parts = build(config)
    with torch.no_grad():
        parts.learner.nets["mixer"].hyper_w2[-1].bias.add_(5.0)  # type: ignore[attr-defined]
    state = parts.state_dict(with_buffer=False) | {"position": {"env_steps": 700, "episodes": 7}}
    meta = {"algorithm": "qmix", "env": "constrained_navigation", "seed": 1, "config": config.values}
    save_checkpoint(tmp_path / "other", state, meta)
    parts.close()
    page = tmp_path / "page.html"
    weights = []
    for checkpoint in (path, tmp_path / "other"):
        main([str(checkpoint), "--episodes", "1", "--output", str(page)])
        weights.append(shown(page)[0]["episodes"][0]["internals"]["dQ_tot / dQ_i"][0])
    assert all(large > 2 * small for small, large in zip(*weights, strict=True))
