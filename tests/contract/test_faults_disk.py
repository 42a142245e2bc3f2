"""A disk that refuses: what was saved is unharmed, no run is COMPLETED with something missing, resume finishes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.faults import (
    OFTEN,
    before_round,
    full_states,
    largest_file,
    left_by,
    limit_files,
    read,
    resume,
    run_in,
    send,
    start,
    status,
    unlimit_files,
)

from components import files
from components.checkpoint import verify_checkpoint
from reports.run_records import read_run
from utils import logging as run_logging
from utils.sacred_run import start_run


@pytest.fixture(autouse=True)
def limits_end() -> Iterator[None]:
    yield
    unlimit_files()


def full_state_size(folder: Path) -> int:
    return max((path / "tensors.pt").stat().st_size for path in full_states(folder))


def refuse(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Every atomic write of files of these names fails."""
    real = files.temporary_sibling

    def temporary_sibling(path: Path) -> Path:
        if path.name in names:
            raise OSError(28, "No space left on device")
        return real(path)

    patch.setattr(files, "temporary_sibling", temporary_sibling)


def test_a_full_state_that_does_not_fit_leaves_the_one_before_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        folder = run_in(tmp_path)
        seen.append([path.name for path in full_states(folder)])
        assert list(folder.rglob(".*")) == []
        for path in full_states(folder):
            verify_checkpoint(path)

    def fill() -> None:
        look()
        limit_files(full_state_size(run_in(tmp_path)) - 1)

    before_round(monkeypatch, 6, fill)
    before_round(monkeypatch, 9, look)
    assert start(tmp_path, OFTEN) == 0
    assert seen[1] == seen[0]
    assert len(seen[0]) == 2
    printed = capsys.readouterr().err
    assert "could not be written: File too large" in printed
    assert "can be resumed from the full state before it" in printed
    assert left_by(run_in(tmp_path)) == undisturbed


def test_a_stop_signal_on_a_full_disk_leaves_the_full_state_before(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    def fill() -> None:
        limit_files(full_state_size(run_in(tmp_path)) - 1)
        send()()

    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 6, fill)
        assert start(tmp_path, OFTEN) == 143
    unlimit_files()
    folder = run_in(tmp_path)
    assert status(folder) == "INTERRUPTED"
    assert len(full_states(folder)) == 2
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed


@pytest.mark.parametrize("overrides", [[], ["save_model_interval=160"]], ids=["final", "intermediate"])
def test_a_model_that_does_not_fit_fails_the_run(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path / "whole", *overrides) == 0
    whole = run_in(tmp_path / "whole")
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        small = min(path.stat().st_size for path in whole.glob("checkpoints/*/tensors.pt")) - 1
        before_round(patch, 4, lambda: limit_files(small))
        assert start(tmp_path / "full", OFTEN, *overrides) != 0
    unlimit_files()
    folder = run_in(tmp_path / "full")
    printed = capsys.readouterr().err
    assert "error: checkpoint" in printed
    assert "could not be written: File too large" in printed
    assert "Traceback" not in printed
    assert status(folder) == "FAILED"
    assert not (folder / "summary.json").exists()
    assert list(folder.rglob(".*")) == []
    assert resume(folder) == 0
    assert left_by(folder) == left_by(whole)


def limited_metrics(patch: pytest.MonkeyPatch, results: Path, begin: int, end: int | None) -> None:
    """Metrics cannot grow from one round to another."""
    real = run_logging.MetricsFile._flush
    refusing: list[int] = []

    def flush(self: Any) -> None:
        if not refusing:
            real(self)
            return
        with largest_file(self.path.stat().st_size + 20):  # a line is cut in the middle
            real(self)

    patch.setattr(run_logging.MetricsFile, "_flush", flush)
    before_round(patch, begin, lambda: refusing.append(1))
    if end is not None:
        before_round(patch, end, refusing.clear)


def test_metrics_wait_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    limited_metrics(monkeypatch, tmp_path, 4, 9)
    assert start(tmp_path, OFTEN) == 0
    printed = capsys.readouterr().err
    assert "metrics.jsonl cannot be written (File too large); kept in memory" in printed
    assert left_by(run_in(tmp_path)) == undisturbed


def test_metrics_that_never_fit_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        limited_metrics(patch, tmp_path, 4, None)
        assert start(tmp_path, OFTEN) != 0
    folder = run_in(tmp_path)
    printed = capsys.readouterr().err
    assert "error: metrics are missing at the end of" in printed
    assert "Traceback" not in printed
    assert status(folder) == "FAILED"
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed


@pytest.mark.parametrize("name", ["config_sources.json", "seeds.json", "summary.json", "replay.html", "info.json"])
def test_a_record_that_cannot_be_written_fails_the_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if name == "info.json":  # written empty at the start
            before_round(patch, 1, lambda: refuse(patch, name))
        else:
            refuse(patch, name)
        assert start(tmp_path, OFTEN, "replay_nepisode=1") != 0
    folder = run_in(tmp_path)
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert name in printed or name == "info.json"
    assert "Traceback" not in printed
    assert status(folder) == "FAILED"
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed
    assert (folder / "replay.html").is_file()


def test_a_final_status_that_cannot_be_written_leaves_a_dead_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 4, lambda: refuse(patch, "run.json"))
        assert start(tmp_path, OFTEN) != 0
    folder = run_in(tmp_path)
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    assert read_run(folder).status == "DEAD"
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed


def test_a_run_that_cannot_be_recorded_at_all_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, "run.json")
        assert start(tmp_path) != 0
    printed = capsys.readouterr().err
    assert "cannot record a run in" in printed
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    assert start(tmp_path) == 0
    assert status(run_in(tmp_path, 2)) == "COMPLETED"


def test_console_output_that_the_disk_refused_is_written_later(tmp_path: Path) -> None:
    words = ["one", 40_000 * "-", "two", 500 * "-", "three", 20_000 * "-", "four"]

    def main(run: Any, folder: Path) -> None:
        print(*words[:2])
        run._emit_heartbeat()
        for some in (words[2:4], words[4:6]):  # less and more than the system's buffers
            print(*some)
            with largest_file((folder / "cout.txt").stat().st_size + 100):
                run._emit_heartbeat()
        print(words[-1])

    start_run({"seed": 1}, tmp_path, main, tmp_path)
    assert (tmp_path / "1" / "cout.txt").read_text().split() == words
    assert read(tmp_path / "1" / "run.json")["status"] == "COMPLETED"


def test_everything_refused_from_some_moment_on_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undisturbed: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 6, lambda: limit_files(200))
        assert start(tmp_path, OFTEN) != 0
    unlimit_files()
    folder = run_in(tmp_path)
    assert status(folder) in ("FAILED", "RUNNING")
    assert "Traceback" not in capsys.readouterr().err
    assert list(folder.rglob(".*")) == []
    assert resume(folder) == 0
    assert left_by(folder) == undisturbed
