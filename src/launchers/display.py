"""What is shown while a set runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launchers.tasks import ACTIVE, DONE, FAILED, STOPPED, WAITING, Task, seconds_left
from utils.progress import duration

LINE_SECONDS = 60.0
# Lines of the terminal that the table leaves to its frame and to what stands around it.
MARGIN = 8
_STYLES = {DONE: "green", FAILED: "bold red", STOPPED: "yellow", WAITING: "dim"}


class Display(Protocol):
    """Shows what the scheduler does."""

    def __enter__(self) -> Display:
        """Begins to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shows the last state and gives the terminal back."""

    def changed(self, task: Task) -> None:
        """A task got another state."""

    def refresh(self, tasks: Sequence[Task]) -> None:
        """Time has passed."""


class LineDisplay:
    """Plain lines: every change of state, and a summary first, once a minute and last; see :class:`Display`.

    Args:
        logger: gets the lines.
        slots: runs at a time, for the time left.
    """

    def __init__(self, logger: logging.Logger, slots: int) -> None:
        self._logger = logger
        self._slots = slots
        self._line_at = 0.0
        self._tasks: Sequence[Task] = ()
        self._told = ""

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last summary."""
        self._tell()

    def changed(self, task: Task) -> None:
        """One line."""
        latest = task.progress.shown if task.progress is not None and task.state == DONE else ""
        level = logging.ERROR if task.state == FAILED else logging.INFO
        self._logger.log(level, "%s", ": ".join(filter(None, [f"{task.job.name} {task.state}", latest, task.note])))

    def refresh(self, tasks: Sequence[Task]) -> None:
        """A line when a minute is over."""
        self._tasks = tasks
        if time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            self._tell()

    def _tell(self) -> None:
        text = summary(self._tasks, self._slots) if self._tasks else self._told
        if text != self._told:
            self._logger.info("%s", text)
        self._told = text


class TableDisplay:
    """A live table: one row for each run, or for each algorithm and environment when the terminal is too low.

    Args:
        console: the terminal.
        slots: runs at a time, for the time left.
    """

    def __init__(self, console: Console, slots: int) -> None:
        self._console = console
        self._slots = slots
        # Drawn from refresh() only: no thread, no cost in between.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> TableDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def changed(self, task: Task) -> None:
        """Faults stand above the table; the other changes show in it."""
        if task.note and (task.state == FAILED or task.failures):
            self._live.console.print(
                Text(f"{task.job.name} {task.state}: {task.note}", style=_STYLES.get(task.state, ""))
            )

    def refresh(self, tasks: Sequence[Task]) -> None:
        """Draws the table."""
        self._live.update(table(tasks, self._slots, self._console.height), refresh=True)


def table(tasks: Sequence[Task], slots: int, height: int) -> Table:
    """The tasks as a table that fits a terminal of so many lines."""
    drawn = Table(title=summary(tasks, slots), title_justify="left", title_style="bold", expand=False)
    for name in ("algorithm", "environment", "seed", "state", "progress"):
        drawn.add_column(name)
    for name in ("env steps", "steps/s", "left", "latest"):
        drawn.add_column(name, justify="right")
    single = len(tasks) <= max(height - MARGIN, 1)
    groups = [[task] for task in tasks] if single else list(_groups(tasks))
    for group in groups:
        drawn.add_row(*_row(group))
    return drawn


def _groups(tasks: Iterable[Task]) -> Iterable[list[Task]]:
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.job.algorithm, task.job.environment), []).append(task)
    return groups.values()


def _row(group: Sequence[Task]) -> list[Text | ProgressBar]:
    first = group[0]
    states = Counter(task.state for task in group)
    state = first.state if len(group) == 1 else ", ".join(f"{count} {name}" for name, count in states.items())
    steps, total = sum(task.env_steps for task in group), sum(task.job.t_max for task in group)
    rates = [task.rate for task in group if task.state in ACTIVE and task.rate]
    running = any(task.state in ACTIVE for task in group)
    left = seconds_left(group, max(len(rates), 1)) if rates and running else None
    style = _STYLES.get(first.state, "") if len(states) == 1 else ""
    cells = [
        first.job.algorithm,
        first.job.environment,
        str(first.job.seed) if len(group) == 1 else f"{len(group)} seeds",
        state,
        "",
        f"{steps:,} / {total:,}",
        f"{sum(rates):,.0f}" if rates else "",
        "" if left is None else duration(left),
        _latest(group),
    ]
    row: list[Text | ProgressBar] = [Text(cell, style=style) for cell in cells]
    row[4] = ProgressBar(total=total, completed=min(steps, total), width=20)
    return row


def _latest(group: Sequence[Task]) -> str:
    """The newest test success or return, its mean over the runs that have one."""
    if len(group) == 1:
        return group[0].progress.shown if group[0].progress is not None else ""
    found: dict[str, list[float]] = {}
    for task in group:
        name, _, value = (task.progress.shown if task.progress is not None else "").partition(" ")
        if value:
            found.setdefault(name, []).append(float(value))
    return ", ".join(f"{name} {fmean(values):.3g}" for name, values in found.items())


def summary(tasks: Sequence[Task], slots: int) -> str:
    """``"3 of 9 done, 2 running, 4 waiting, 41 % of the env steps, 0:12:10 left"``."""
    states = Counter(task.state for task in tasks)
    parts = [f"{states[DONE]} of {len(tasks)} done"]
    parts += [f"{count} {name}" for name, count in states.items() if name != DONE]
    total = sum(task.job.t_max for task in tasks)
    parts.append(f"{100 * sum(task.env_steps for task in tasks) / total:.0f} % of the env steps")
    left = seconds_left(tasks, slots)
    if left:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)
