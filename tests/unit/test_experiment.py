"""The training loop around its parts."""

from __future__ import annotations

from pathlib import Path

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
