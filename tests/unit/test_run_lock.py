"""Who writes a folder: known while the process lives, and only so long."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.faults import exit_code, forked

from components.errors import UserError
from reports.run_records import DEAD, RUNNING, read_run
from utils.run_lock import LOCK, RunLock, is_locked, lock_owner


def test_the_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with pytest.raises(UserError) as caught:
            RunLock(tmp_path)
        assert f"{tmp_path} is being written by process {os.getpid()} on {os.uname().nodename}" in str(caught.value)
        assert lock_owner(tmp_path)["pid"] == os.getpid()  # the refused one wrote nothing
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    RunLock(tmp_path).release()


def test_a_lock_is_released_twice_without_harm(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.release()
    with RunLock(tmp_path):
        lock.release()
        assert is_locked(tmp_path)


def test_locks_of_other_names_are_independent(tmp_path: Path) -> None:
    with RunLock(tmp_path, "set.lock"):
        assert not is_locked(tmp_path)
        with RunLock(tmp_path), pytest.raises(UserError):
            RunLock(tmp_path, "set.lock")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_system_releases_the_lock_of_a_killed_process(tmp_path: Path, number: signal.Signals) -> None:
    def hold() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        lock = RunLock(tmp_path)
        (tmp_path / "held").touch()
        time.sleep(60)
        lock.release()
        return 0

    child = forked(hold, tmp_path / "log")
    while not (tmp_path / "held").exists():
        time.sleep(0.002)
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match=f"process {child} on"):
        RunLock(tmp_path)
    os.kill(child, number)
    assert exit_code(child) == -number
    assert not is_locked(tmp_path)
    assert lock_owner(tmp_path)["pid"] == child
    with RunLock(tmp_path):
        assert lock_owner(tmp_path)["pid"] == os.getpid()


def test_of_many_processes_one_gets_the_lock(tmp_path: Path) -> None:
    def attempt() -> int:
        while not (tmp_path / "go").exists():
            time.sleep(0.001)
        try:
            lock = RunLock(tmp_path)
        except UserError:
            return 2
        while not (tmp_path / "end").exists():
            time.sleep(0.001)
        lock.release()
        return 0

    children = [forked(attempt, tmp_path / f"{number}.log") for number in range(5)]
    (tmp_path / "go").touch()
    waiting, codes = set(children), []
    while len(waiting) > 1:  # the losers give up while the winner waits for "end"
        for child in list(waiting):
            ended, code = os.waitpid(child, os.WNOHANG)
            if ended:
                waiting.remove(child)
                codes.append(os.waitstatus_to_exitcode(code))
        time.sleep(0.002)
    (tmp_path / "end").touch()
    assert [*codes, exit_code(waiting.pop())] == [2, 2, 2, 2, 0]


def test_one_who_only_looks_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    RunLock(tmp_path).release()

    def look() -> int:
        while not (tmp_path / "end").exists():
            is_locked(tmp_path)
        return 0

    children = [forked(look, tmp_path / f"{number}.log") for number in range(2)]
    for _ in range(50):
        RunLock(tmp_path).release()
    (tmp_path / "end").touch()
    assert [exit_code(child) for child in children] == [0, 0]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\x00"])
def test_an_unreadable_lock_has_no_owner(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / LOCK).write_text(content)
    assert lock_owner(tmp_path) == {}
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        assert lock_owner(tmp_path)["pid"] == os.getpid()


def test_a_file_system_without_locks_goes_by_the_records_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("utils.run_lock.fcntl.flock", refuse)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "run.json").write_text('{"status": "RUNNING"}')
    with RunLock(tmp_path):
        assert lock_owner(tmp_path)["locks"] is False
        assert read_run(tmp_path).status == RUNNING
        os.utime(tmp_path / "run.json", (0, 0))
        assert read_run(tmp_path).status == DEAD
