"""Runs tasks on a launcher's slots: starts, adopts, retries, stops."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launchers.base import Launcher
from launchers.display import Display
from launchers.jobs import newly_made_run, run_folders
from launchers.tasks import ACTIVE, ADOPTED, DONE, FAILED, STARTED, STOPPED, WAITING, Task
from reports.run_records import COMPLETED, DEAD, INTERRUPTED, RUNNING, read_run
from utils.run_lock import is_locked, lock_owner
from utils.signals import STOP_SIGNALS, Stopped, StopSignals

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two looks at the runs' files
_DONE, _USER_ERROR, _STOPPED = 0, 2, (130, 143)
_TAIL_LINES, _TAIL_BYTES = 8, 8192


def run_tasks(
    tasks: Sequence[Task], launcher: Launcher, program: Sequence[str], retries: int, display: Display
) -> None:
    """Brings every task to an end: done, failed, or stopped by somebody else.

    The first SIGTERM or Ctrl-C asks all runs to save their state and waits for them; the second kills them.

    Args:
        tasks: see :func:`launchers.tasks.make_tasks`; changed in place.
        launcher: where they run.
        program: the command before a run's arguments.
        retries: how often a run that failed is continued.
        display: is told what happens.

    Raises:
        StopRequested: stopped; all runs have ended.
        Stopped: killed.
    """
    scheduler = _Scheduler(tasks, launcher, program, retries, display)
    with StopSignals() as signals:
        try:
            with display:
                scheduler.run(signals)
        except Stopped:
            scheduler.kill()
            raise
        signals.check()


class _Scheduler:
    def __init__(
        self, tasks: Sequence[Task], launcher: Launcher, program: Sequence[str], retries: int, display: Display
    ) -> None:
        self._tasks = tasks
        self._launcher = launcher
        self._program = list(program)
        self._retries = retries
        self._display = display
        self._stopping = False
        self._look_at = 0.0

    def run(self, signals: StopSignals) -> None:
        """Goes on until nothing runs any more and nothing may be started."""
        for task in self._active():
            self._become(task, ADOPTED, f"another process runs {task.run}")
        while True:
            if signals.requested is not None and not self._stopping:
                self._stop()
            looks = time.monotonic() >= self._look_at
            for task in self._active():
                self._check(task, looks)
            if not self._stopping:
                self._fill()
            if looks:
                self._look_at = time.monotonic() + LOOK_SECONDS
                self._display.refresh(self._tasks)
            if not self._active():
                self._display.refresh(self._tasks)
                return
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Ends every process now; their runs go on from their last checkpoint at the next start."""
        for number in STOP_SIGNALS:  # a third one must not leave half of them alive
            signal.signal(number, signal.SIG_IGN)
        for task in self._active():
            if task.state == STARTED:
                self._launcher.kill(task.handle)
            else:
                _signal_owner(task, signal.SIGKILL)
            task.state = STOPPED

    def _active(self) -> list[Task]:
        return [task for task in self._tasks if task.state in ACTIVE]

    def _fill(self) -> None:
        free = self._launcher.slots - len(self._active())
        for task in [task for task in self._tasks if task.state == WAITING][: max(free, 0)]:
            self._start(task)

    def _start(self, task: Task) -> None:
        if task.run is None:
            task.known = set(run_folders(task.job))
        else:
            task.found(task.run)
        self._mark_log(task)
        task.handle = self._launcher.start([*self._program, *task.arguments], task.log)
        self._become(task, STARTED, task.note if task.run is None else f"continues {task.run}")

    def _mark_log(self, task: Task) -> None:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        what = "starts" if task.run is None else f"continues {task.run}"
        with task.log.open("a") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {task.job.name} {what}\n")

    def _check(self, task: Task, looks: bool) -> None:
        if task.state == STARTED:
            code = self._launcher.poll(task.handle)
            if looks or code is not None:
                self._look(task)
            if code is not None:
                self._ended(task, code)
        elif looks:
            self._look(task)
            self._check_adopted(task)

    def _look(self, task: Task) -> None:
        if task.run is None:
            run = newly_made_run(task.job, task.known)
            if run is not None:
                task.found(run)
        elif task.progress is not None:
            task.progress.refresh()

    def _ended(self, task: Task, code: int) -> None:
        task.handle = None
        if code == _DONE:
            if task.run is not None and read_run(task.run).status == COMPLETED:
                self._become(task, DONE)
            else:
                self._become(task, FAILED, f"ended without a completed run of this configuration, see {task.log}")
        elif code in _STOPPED:
            self._become(task, STOPPED)
        elif code == _USER_ERROR:
            self._become(task, FAILED, _tail(task.log))
        else:
            self._retry(task, f"exit code {code}", _tail(task.log))

    def _check_adopted(self, task: Task) -> None:
        record = read_run(task.run) if task.run is not None else None
        if record is None or record.status == RUNNING:
            if self._stopping and not _is_ours(task):
                self._become(task, STOPPED, "goes on on another host")
        elif record.status == COMPLETED:
            self._become(task, DONE)
        elif record.status == INTERRUPTED or (record.status == DEAD and self._stopping):
            self._become(task, STOPPED)
        else:
            self._retry(task, record.status.lower(), record.problem)

    def _retry(self, task: Task, why: str, detail: str) -> None:
        task.failures += 1
        if task.failures > self._retries or self._stopping:
            self._become(task, FAILED, f"{why}\n{detail}".strip())
        else:
            self._become(task, WAITING, f"{why}: continued from its last checkpoint")

    def _become(self, task: Task, state: str, note: str = "") -> None:
        task.state, task.note = state, note
        self._display.changed(task)

    def _stop(self) -> None:
        self._stopping = True
        for task in self._active():
            if task.state == STARTED:
                self._launcher.stop(task.handle)
            else:
                _signal_owner(task, signal.SIGTERM)


def _is_ours(task: Task) -> bool:
    """Whether the process that runs an adopted task is on this host."""
    return task.run is not None and lock_owner(task.run).get("host") == socket.gethostname()


def _signal_owner(task: Task, number: signal.Signals) -> None:
    """Signals the process that runs an adopted task, if it is on this host and alive."""
    if task.run is not None and _is_ours(task) and is_locked(task.run):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(lock_owner(task.run)["pid"]), number)


def _tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"{log} cannot be read: {error.strerror}"
    return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])
