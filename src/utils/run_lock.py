"""Who writes a run's folder: a lock that the system releases however the process ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from components.errors import UserError

LOCK = "run.lock"
GLANCE_SECONDS = 0.2  # far longer than is_locked holds its shared lock


class RunLock:
    """Held while a process writes a run's folder.

    Args:
        folder: the run's folder, which exists.
        name: the lock's file; others than a run's are locked under another name.

    Raises:
        UserError: another process holds it.
    """

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        path = Path(folder) / name
        # Not closed here: the lock lives as long as the open file.
        self._file = path.open("a+")
        if not _locked_within(self._file, GLANCE_SECONDS):
            self._file.close()
            owner = lock_owner(folder, name)
            raise UserError(
                f"{folder} is being written by process {owner.get('pid', '?')} on {owner.get('host', 'another host')}: "
                "stop that first (kill -TERM saves a checkpoint)"
            )
        self._file.truncate(0)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "locks": locks_work(self._file)}
        self._file.write(json.dumps(owner))
        self._file.flush()

    def release(self) -> None:
        """Gives the folder free; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _locked_within(file: TextIO, seconds: float) -> bool:
    """Takes the lock; waits a moment for those who only look whether it is taken."""
    deadline = time.monotonic() + seconds
    while not _locked(file):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the record's age must tell who is alive
        return True
    return True


def locks_work(file: TextIO) -> bool:
    """Whether the file system knows locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(folder: Path) -> bool:
    """Whether a process of this host (or, where the file system shares locks, of any) writes the folder."""
    try:
        with (Path(folder) / LOCK).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except OSError:  # no lock file, or a file system without locks
        return False


def lock_owner(folder: Path, name: str = LOCK) -> dict[str, Any]:
    """``{"pid", "host", "locks"}`` of the process that wrote the lock last; empty where there is none.

    ``locks`` is false on a file system without locks, where nothing but the record's age tells who is alive.
    """
    try:
        owner = json.loads((Path(folder) / name).read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
