"""Small runs in this process that faults are put into, and what must be the same as without them."""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import EARLY, fingerprint

from components.checkpoint import load_checkpoint
from components.checkpoint_folders import MODELS, RESUME, checkpoints_in
from controllers.base import Clock
from main import main
from runners.episode_runner import EpisodeRunner, Episodes

# About twelve rounds; tests at 0, 80, ...; a third of a second.
QUICK = (
    *("batch_size_run=4", "buffer_size=40", "test_nepisode=6", "final_nepisode=8", "test_interval=80"),
    *("log_interval=40", "env_args.episode_limit=8", "t_max=320", "replay_nepisode=0"),
)
# A full state before every round.
OFTEN = "checkpoint_minutes=1e-9"
LEARNERS = {"qmix": "q_learner", "vdn": "q_learner", "iql": "q_learner", "lpmarl": "lpmarl_learner"}
# Measurements of time, which no resume can repeat.
TIMES = ("cpu_seconds", "wall_seconds")


def start(results: Path, *overrides: str, algorithm: str = "qmix", env: str = "constrained_navigation") -> int:
    """Exit code of a small run."""
    settings = [*QUICK, *EARLY[LEARNERS[algorithm]], *overrides, f"local_results_path={results}"]
    return main([f"--config={algorithm}", f"--env-config={env}", "with", *settings])


def resume(folder: Path, *overrides: str) -> int:
    """Exit code of ``resume``."""
    return main(["resume", str(folder), *(["with", *overrides] if overrides else [])])


def run_in(results: Path, number: int = 1) -> Path:
    """The folder of a run below ``results``."""
    return next(results.glob(f"sacred/*/*/{number}"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def status(folder: Path) -> str:
    """What ``run.json`` says, right or wrong."""
    return str(read(folder / "run.json")["status"])


def full_states(folder: Path) -> list[Path]:
    """Newest first."""
    return checkpoints_in(folder / RESUME)


def left_by(folder: Path) -> dict[str, Any]:
    """Everything in a finished run's folder that a fault must not change."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    info, summary = read(folder / "info.json"), read(folder / "summary.json")
    state = load_checkpoint(checkpoints_in(folder / MODELS)[0]).state
    return {
        "status": status(folder),
        "state": {name: fingerprint(part) for name, part in state.items()},
        "metrics": [line for line in lines if line["key"] not in TIMES],
        "info": {key: values for key, values in info.items() if key.removesuffix("_T") not in TIMES},
        "test": summary["test"],
        "updates": summary["updates"],
        "env_steps": summary["env_steps"],
        "seeds": read(folder / "seeds.json"),
        "sources": sorted(read(folder / "config_sources.json")),
        "models": sorted(path.name for path in checkpoints_in(folder / MODELS)),
        "full_states": full_states(folder),
        "hidden": [path.name for path in folder.rglob(".*")],
    }


def before_round(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object], test_mode: bool = False) -> None:
    """Calls ``act`` before the training (or test) round of that number, from 1."""
    real, count = EpisodeRunner.collect, 0
    wanted = test_mode

    def collect(self: EpisodeRunner, clock: Clock, test_mode: bool = False) -> Episodes:
        nonlocal count
        if test_mode == wanted:
            count += 1
            if count == number:
                act()
        return real(self, clock, test_mode)

    patch.setattr(EpisodeRunner, "collect", collect)


def send(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """An act that sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def interrupted(results: Path, *overrides: str, rounds: int = 7, algorithm: str = "qmix") -> Path:
    """The folder of a run that SIGTERM ended in a training round, with two full states."""
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, rounds, send())
        assert start(results, OFTEN, *overrides, algorithm=algorithm) == 143
    folder = run_in(results)
    assert len(full_states(folder)) == 2
    return folder


def forked(call: Callable[[], int], log: Path) -> int:
    """Process number of a copy of this process that makes the call, prints to ``log`` and exits with the result."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                code = call()
            except Exception:
                traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    """Of a forked process, when it ends; negative where a signal killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that refuses to let a file grow beyond so many bytes."""
    limit_files(size)
    try:
        yield
    finally:
        unlimit_files()


def limit_files(size: int) -> None:
    """The same until :func:`unlimit_files`. Python ignores SIGXFSZ, so writing fails with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def unlimit_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
