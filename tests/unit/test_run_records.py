"""What a results folder says about its runs: who is alive, who is dead, and what cannot be read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.result_folders import write_run

from components.errors import UserError
from reports import run_records
from reports.run_records import SILENT_SECONDS, find_runs, read_run
from utils.run_lock import RunLock

HERE = os.uname().nodename


def running(results: Path, host: str | None = HERE, silent: float = 0.0) -> Path:
    """A run whose record says RUNNING, last written so many seconds ago; ``None``: an older run without a lock."""
    folder = write_run(results, status="RUNNING")
    if host is not None:
        (folder / "run.lock").write_text(json.dumps({"pid": 1, "host": host}))
    moment = time.time() - silent
    os.utime(folder / "run.json", (moment, moment))
    return folder


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "INTERRUPTED"])
def test_a_final_status_is_believed(tmp_path: Path, status: str) -> None:
    assert read_run(write_run(tmp_path, status=status)).status == status


@pytest.mark.parametrize("silent", [0.0, 10 * SILENT_SECONDS, -10 * SILENT_SECONDS])
def test_a_run_that_holds_its_lock_lives_however_long_it_is_silent(tmp_path: Path, silent: float) -> None:
    folder = running(tmp_path, silent=silent)
    with RunLock(folder):
        assert read_run(folder).status == "RUNNING"
    assert read_run(folder).status == "DEAD"


def test_a_free_lock_of_this_host_is_a_death_that_no_clock_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = running(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert read_run(folder).status == "DEAD"


@pytest.mark.parametrize("host", ["another-host", None])
@pytest.mark.parametrize(
    ("silent", "status"),
    [(0.0, "RUNNING"), (SILENT_SECONDS - 60, "RUNNING"), (SILENT_SECONDS + 60, "DEAD"), (-3600.0, "RUNNING")],
)
def test_a_run_of_another_host_is_dead_when_it_has_been_silent(
    tmp_path: Path, host: str | None, silent: float, status: str
) -> None:
    assert read_run(running(tmp_path, host=host, silent=silent)).status == status


def test_a_run_that_ends_while_it_is_read_is_not_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = running(tmp_path)

    def ends(path: Path) -> bool:
        (path / "run.json").write_text(json.dumps({"status": "COMPLETED"}))
        return False

    monkeypatch.setattr(run_records, "is_locked", ends)
    assert read_run(folder).status == "COMPLETED"


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize("content", ["", '{"status": "RUN', "[1, 2]", "\x00\x00", None])
def test_a_record_that_cannot_be_read_is_broken_and_says_why(tmp_path: Path, name: str, content: str | None) -> None:
    folder = write_run(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    record = read_run(folder)
    assert record.status == "BROKEN"
    assert record.problem
    assert (record.config, record.run, record.env_steps) == ({}, {}, 20_000)
    assert (record.algorithm, record.env) == ("qmix", "navigation")  # from the folder's place


def test_a_record_without_a_status_is_broken_and_says_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "run.json").write_text("{}")
    record = read_run(folder)
    assert record.status == "BROKEN"
    assert "status" in record.problem


def test_a_failed_run_tells_its_reason(tmp_path: Path) -> None:
    folder = write_run(tmp_path, status="FAILED")
    run = json.loads((folder / "run.json").read_text()) | {"fail_trace": ["Traceback\n", "ValueError: boom\n"]}
    (folder / "run.json").write_text(json.dumps(run))
    assert read_run(folder).problem == "ValueError: boom"


def test_half_a_metrics_line_and_half_a_summary_are_passed_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path, curves={"return": [(0, 1.0), (50, None)]}, final={})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"key": "test_return_mean", "t": 90, "val')
    (folder / "summary.json").write_text('{"env_st')
    record = read_run(folder)
    assert record.summary is None
    assert [t for t, _ in record.metrics["test_return_mean"]] == [0, 50]
    assert record.env_steps == 50


def test_steps_of_a_run_that_goes_on_come_from_its_heartbeat(tmp_path: Path) -> None:
    folder = write_run(tmp_path, status="RUNNING", curves={"return": [(0, 1.0), (50, 2.0)]}, final={})
    run: dict[str, Any] = json.loads((folder / "run.json").read_text()) | {"result": 70}
    (folder / "run.json").write_text(json.dumps(run))
    assert read_run(folder).env_steps == 70


def test_runs_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folders = [write_run(tmp_path) for _ in range(11)]
    (tmp_path / "sacred" / "navigation" / "qmix" / "12").mkdir()
    (tmp_path / "sacred" / "navigation" / "qmix" / "12" / "run.lock").touch()
    found = find_runs(tmp_path)
    assert [record.folder.name for record in found] == [folder.name for folder in folders] + ["12"]
    assert found[-1].status == "BROKEN"


def test_no_results_folder_is_told(tmp_path: Path) -> None:
    assert find_runs(tmp_path) == []
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
