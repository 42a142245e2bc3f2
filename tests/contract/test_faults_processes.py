"""Several processes, clocks that jump, seeds of workers: what must not disturb a run."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.faults import (
    QUICK,
    before_round,
    exit_code,
    forked,
    full_states,
    left_by,
    read,
    resume,
    run_in,
    start,
    status,
)

import experiment
from components.config import load_config
from envs.base import derive_seeds
from parts import TEST_SEEDS, TRAIN_SEEDS, Parts, build
from reports.run_records import read_run

# --- one folder, several processes -------------------------------------------------------------------------------


def test_a_run_that_goes_on_cannot_be_resumed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    codes: list[int] = []
    before_round(
        monkeypatch,
        4,
        lambda: codes.append(exit_code(forked(lambda: resume(run_in(tmp_path)), tmp_path / "other.log"))),
    )
    assert start(tmp_path) == 0
    assert codes == [2]
    printed = (tmp_path / "other.log").read_text()
    assert f"is still going on: process {os.getpid()} on" in printed
    assert "Traceback" not in printed
    assert left_by(run_in(tmp_path)) == undisturbed


def test_of_two_resumes_at_once_one_wins(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "qmix" / "1"
    shutil.copytree(stopped, folder)
    real = experiment.start_run

    def meet(*given: Any, **options: Any) -> Any:
        """Both have read the folder when the first one locks it."""
        (tmp_path / f"ready {os.getpid()}").touch()
        while len(list(tmp_path.glob("ready *"))) < 2:
            time.sleep(0.001)
        return real(*given, **options)

    monkeypatch.setattr(experiment, "start_run", meet)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    children = [forked(lambda: resume(folder), log) for log in logs]
    codes = [exit_code(child) for child in children]
    assert sorted(codes) == [0, 2]
    loser = logs[codes.index(2)].read_text()
    assert f"{folder} is being written by process" in loser or f"{folder} is finished" in loser
    assert "Traceback" not in loser
    assert left_by(folder) == undisturbed


def test_a_resume_that_comes_too_late_leaves_the_finished_run_alone(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "qmix" / "1"
    shutil.copytree(stopped, folder)
    real = experiment.start_run

    def late(*given: Any, **options: Any) -> Any:
        """Another process resumes and finishes the run after this one has read its folder."""
        monkeypatch.setattr(experiment, "start_run", real)
        assert exit_code(forked(lambda: resume(folder), tmp_path / "other.log")) == 0
        files.update(contents(folder))
        return real(*given, **options)

    files: dict[Path, bytes] = {}
    monkeypatch.setattr(experiment, "start_run", late)
    assert resume(folder) == 2
    assert "is finished (COMPLETED)" in capsys.readouterr().err
    assert contents(folder) == files


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


# --- clocks ------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    real, jumps = time.time, itertools.cycle([0.0, 40 * 86_400.0, -40 * 86_400.0])
    seen: list[tuple[str, int]] = []

    def look() -> None:
        folder = run_in(tmp_path)
        os.utime(folder / "run.json", (1.0, 1.0))  # no heartbeat for decades
        seen.append((read_run(folder).status, len(full_states(folder))))

    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    for number in (2, 5, 9):
        before_round(monkeypatch, number, look)
    began = time.monotonic()
    assert start(tmp_path, "checkpoint_minutes=5") == 0
    seconds = time.monotonic() - began
    summary = read(run_in(tmp_path) / "summary.json")
    assert 0 < summary["wall_seconds"] < seconds
    assert summary["env_steps_per_second"] > summary["env_steps"] / seconds
    assert seen == [("RUNNING", 0)] * 3
    assert left_by(run_in(tmp_path)) == undisturbed


# --- seeds -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 2), st.integers(1, 64), st.integers(1, 250))
def test_no_two_environments_share_a_seed(seed: int, n_train: int, n_test: int) -> None:
    found = [
        one
        for run in (seed, seed + 1)
        for stream, count in ((TRAIN_SEEDS, n_train), (TEST_SEEDS, n_test))
        for one in derive_seeds(run, stream, count)
    ]
    assert len(set(found)) == len(found)
    assert derive_seeds(seed, TRAIN_SEEDS, n_train) == derive_seeds(seed, TRAIN_SEEDS, n_train + 3)[:n_train]


@pytest.fixture(params=["episode", "parallel"])
def small(request: pytest.FixtureRequest) -> Iterator[Parts]:
    workers = ["n_workers=2"] if request.param == "parallel" else []
    made = build(load_config("qmix", "constrained_navigation", [*QUICK, f"runner={request.param}", *workers]))
    yield made
    made.close()


def test_environments_in_processes_and_workers_play_different_episodes(small: Parts) -> None:
    starts = []
    for runner in (small.train, small.test):
        runner.envs.reset()
        starts += list(np.array(runner.envs.observation["obs"]).reshape(runner.envs.n_envs, -1).round(6))
    assert len(starts) == 4 + 6
    assert len({tuple(row) for row in starts}) == len(starts)


def test_the_seeds_of_all_environments_are_recorded(undisturbed: dict[str, Any], small: Parts) -> None:
    assert undisturbed["seeds"] == {"train": small.train.envs.seeds, "test": small.test.envs.seeds}
    assert len(set(undisturbed["seeds"]["train"] + undisturbed["seeds"]["test"])) == 4 + 6
    assert undisturbed["status"] == "COMPLETED"


def test_runs_of_one_experiment_do_not_touch_each_other(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    children = [forked(lambda: start(tmp_path), tmp_path / f"{number}.log") for number in range(3)]
    assert [exit_code(child) for child in children] == [0, 0, 0]
    for number in (1, 2, 3):
        assert left_by(run_in(tmp_path, number)) == undisturbed
        assert status(run_in(tmp_path, number)) == "COMPLETED"
