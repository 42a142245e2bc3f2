"""A run that is told to stop: where it stops, what it says, and that it goes on exactly."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.faults import (
    OFTEN,
    before_round,
    exit_code,
    forked,
    full_states,
    left_by,
    read,
    resume,
    run_in,
    send,
    start,
    status,
)

import parts
from components import checkpoint
from reports.run_records import read_run
from runners.episode_runner import EpisodeRunner

ALGORITHMS = ("qmix", "lpmarl")
# Several rounds of test episodes, so that a signal can come between them: five evaluations of three, then four.
ROUNDS = "test_nepisode=6"
LAST = 19


@pytest.fixture(autouse=True)
def small_test_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TEST_BATCH", 2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the run leaves when nothing happens, by algorithm."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "TEST_BATCH", 2)
        for algorithm in ALGORITHMS:
            results = tmp_path_factory.mktemp("whole")
            assert start(results, ROUNDS, "save_buffer=true", algorithm=algorithm) == 0
            found[algorithm] = left_by(run_in(results))
    return found


@pytest.mark.parametrize(
    ("algorithm", "moment", "test_mode", "number"),
    [
        ("qmix", 4, False, signal.SIGTERM),
        ("qmix", 4, False, signal.SIGINT),
        ("qmix", 2, True, signal.SIGTERM),
        ("qmix", 8, True, signal.SIGTERM),
        ("qmix", LAST - 1, True, signal.SIGINT),
        ("lpmarl", 4, False, signal.SIGTERM),
        ("lpmarl", 8, True, signal.SIGINT),
        ("lpmarl", LAST - 1, True, signal.SIGTERM),
    ],
)
def test_a_stopped_run_goes_on_exactly(
    algorithm: str,
    moment: int,
    test_mode: bool,
    number: signal.Signals,
    tmp_path: Path,
    undisturbed: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = undisturbed[algorithm]
    assert 3 * sum(line["key"] == "test_return_mean" for line in whole["metrics"]) + 4 == LAST
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, moment, send(number), test_mode=test_mode)
        assert start(tmp_path, ROUNDS, "save_buffer=true", algorithm=algorithm) == 128 + number
    folder = run_in(tmp_path)
    assert status(folder) == "INTERRUPTED"
    assert not (folder / "summary.json").exists()
    assert len(full_states(folder)) == 1
    printed = capsys.readouterr().err
    assert f"resume {folder}" in printed
    assert "Traceback" not in printed
    assert resume(folder) == 0
    assert left_by(folder) == whole


def test_global_generators_go_on_from_before_an_evaluation_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some third-party parts draw from them, in test episodes too."""
    drawn: list[tuple[float, float]] = []
    real = EpisodeRunner.collect

    def collect(*given: Any, **options: Any) -> Any:
        drawn.append((float(np.random.random()), float(torch.rand(()))))  # noqa: NPY002
        return real(*given, **options)

    monkeypatch.setattr(EpisodeRunner, "collect", collect)
    assert start(tmp_path / "whole") == 0
    whole = list(drawn)
    drawn.clear()
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 5, send(), test_mode=True)
        assert start(tmp_path / "stopped") == 143
    before = len(drawn) - 2  # the rounds of the second evaluation that were played for nothing
    assert drawn[:before] == whole[:before]
    drawn.clear()
    assert resume(run_in(tmp_path / "stopped")) == 0
    assert drawn == whole[before:]


def test_a_second_signal_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()
        raise AssertionError("the second signal was not obeyed")

    with monkeypatch.context() as patch:
        before_round(patch, 4, twice)
        assert start(tmp_path, OFTEN, ROUNDS, "save_buffer=true") == 130
    folder = run_in(tmp_path)
    assert status(folder) == "INTERRUPTED"
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed["qmix"]


def test_a_second_signal_while_the_state_is_saved_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    real = checkpoint.write_hashed
    signalled: list[int] = []

    def write_hashed(path: Path, fill: Any) -> Any:
        if signalled and path.name == "state.json":
            send(signal.SIGINT)()
        return real(path, fill)

    def interrupt() -> None:
        signalled.append(signal.SIGINT)
        send(signal.SIGINT)()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_hashed", write_hashed)
        before_round(patch, 4, interrupt)
        assert start(tmp_path, OFTEN, ROUNDS, "save_buffer=true") == 130
    folder = run_in(tmp_path)
    assert status(folder) == "INTERRUPTED"
    assert len(full_states(folder)) == 2
    assert list(folder.rglob(".*")) == []
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed["qmix"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_was_started_with_signals_ignored_obeys_them(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as a shell without job control does for "command &"
    try:
        before_round(monkeypatch, 3, send(number))
        assert start(tmp_path) == 128 + number
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert status(run_in(tmp_path)) == "INTERRUPTED"


def test_a_signal_while_the_parts_are_built_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parts.ReplayBuffer
    monkeypatch.setattr(parts, "ReplayBuffer", lambda *given: (send()(), real(*given))[1])
    assert start(tmp_path) == 143
    runs = list(tmp_path.glob("sacred/*/*/*"))
    assert [status(folder) for folder in runs] in ([], ["INTERRUPTED"])


def test_a_killed_run_is_dead_and_goes_on_from_its_last_full_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    def run() -> int:
        before_round(monkeypatch, 5, send(signal.SIGKILL))
        return start(tmp_path, OFTEN, ROUNDS, "save_buffer=true")

    child = forked(run, tmp_path / "log")
    assert exit_code(child) == -signal.SIGKILL
    folder = run_in(tmp_path)
    assert status(folder) == "RUNNING"
    assert read_run(folder).status == "DEAD"
    assert read(folder / "run.lock")["pid"] == child
    for path in full_states(folder):
        checkpoint.verify_checkpoint(path)
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed["qmix"]
