"""``python src/main.py resume FOLDER``: continue an interrupted, failed or dead run in its own folder, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser, split_overrides
from components.checkpoint import load_checkpoint, verify_checkpoint
from components.checkpoint_folders import newest_full
from components.config import recorded_config
from components.errors import UserError
from experiment import resume_experiment
from reports.run_records import BROKEN, COMPLETED, RUNNING, RunRecord, find_runs, read_run
from utils.logging import get_logger
from utils.run_lock import lock_owner
from utils.run_record import git_commit

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str]) -> None:
    """Continues the run; prints its folder when it is done."""
    parser = Parser(
        prog="main.py resume",
        description="Continues a run from its newest full state (from the beginning where none was saved). Parameters, "
        "buffer, metrics and random streams end as if it had never stopped. Only values that were not recorded, "
        "because they are secret, may follow 'with'.",
    )
    parser.add_argument("folder", type=Path, help="the run's folder: results/sacred/<env>/<algorithm>/<n>")
    words, overrides = split_overrides(argv)
    print(resume(parser.parse_args(words).folder, overrides))


def resume(folder: Path, overrides: Sequence[str] = ()) -> Path:
    """Continues the run in ``folder``.

    Raises:
        UserError: there is no run to continue, with what is there.
    """
    record = _resumable(folder)
    config = recorded_config(record.config, str(folder / "config.json"), overrides)
    warn = get_logger().warning
    commit = git_commit(ROOT)["commit"]
    if record.commit.get("commit") not in (commit, None):
        warn("the run was started at commit %s, this is %s: what follows may differ", record.commit["commit"], commit)
    found = newest_full(folder, lambda path: _require_usable(folder, path), warn)
    if found is None:
        warn("%s has no full state to go on from: the run starts from the beginning", folder)
        return resume_experiment(folder, config, None)
    get_logger().info("resuming %s from %s", folder, found)
    return resume_experiment(folder, config, load_checkpoint(found))


def _resumable(folder: Path) -> RunRecord:
    if not folder.is_dir():
        raise UserError(f"no run at {folder}: there is no such folder")
    record = read_run(folder)
    if record.status == COMPLETED:
        raise UserError(
            f"{folder} is finished (COMPLETED). To train on, start a new run from its checkpoint: "
            f"checkpoint_path={folder}/checkpoints/<steps> t_max=<more>"
        )
    if record.status == RUNNING:
        owner = lock_owner(folder)
        raise UserError(f"{folder} is still going on: process {owner.get('pid')} on {owner.get('host')}")
    if record.status == BROKEN:
        raise UserError(f"{folder} is not the folder of a run ({record.problem}). {_what_is_there(folder)}")
    return record


def _require_usable(run: Path, folder: Path) -> None:
    """Raises ``UserError`` for a damaged checkpoint, or one whose metrics are no longer all there."""
    needed = verify_checkpoint(folder).get("metrics_bytes", 0)
    metrics = run / "metrics.jsonl"
    there = metrics.stat().st_size if metrics.is_file() else 0
    if there < needed:
        raise UserError(f"{metrics} has {there} bytes, but {folder} was saved when it had {needed}")


def _what_is_there(folder: Path) -> str:
    runs = [f"  {run.folder} ({run.status})" for run in find_runs(folder)]
    if runs:
        return "\n".join(["Runs below it:", *runs])
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:10])
    return f"It holds: {names or 'nothing'}"
