"""How far a run is: a bar on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

BAR_SECONDS = 0.25
LINE_SECONDS = 60.0

Shown = int | float | str


class Progress:
    """Context manager that shows environment steps, rate, elapsed time, time left and chosen values.

    The bar goes to the process's own standard error, never into recorded output.

    Args:
        total: environment steps at the end of the run.
        console_logger: gets the plain lines (and one at the end); on a terminal its messages appear above the bar.
        start: environment steps already done (a resumed run); they do not count for the rate.
        stream: the terminal to draw on; ``None`` takes ``sys.__stderr__``.
    """

    def __init__(
        self, total: int, console_logger: logging.Logger, start: int = 0, stream: TextIO | None = None
    ) -> None:
        self._total = total
        self._start = start
        self._console_logger = console_logger
        self._stream = sys.__stderr__ if stream is None else stream
        self._bar: RichProgress | None = None
        self._began = self._shown_at = time.monotonic()
        self._latest: tuple[int, dict[str, Shown]] | None = None

    def __enter__(self) -> Progress:
        self._began = self._shown_at = time.monotonic()
        if self._stream is not None and self._stream.isatty():
            self._bar = self._new_bar(self._stream)
            self._bar.start()
            self._console_logger.addFilter(self._erase)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._latest is not None:
            self._show(*self._latest)
        if self._bar is not None:
            self._console_logger.removeFilter(self._erase)
            self._bar.stop()
            self._bar = None

    def update(self, env_steps: int, **shown: Shown) -> None:
        """Tells where the run is; cheap enough for every environment step.

        Args:
            env_steps: environment steps so far, those before a resume included.
            shown: the latest values to show, such as ``success=0.8``; a value stays until it is given again.
        """
        known = {} if self._latest is None else self._latest[1]
        self._latest = (env_steps, {**known, **shown})
        now = time.monotonic()
        if now - self._shown_at >= (LINE_SECONDS if self._bar is None else BAR_SECONDS):
            self._shown_at = now
            self._show(*self._latest)

    def _new_bar(self, stream: TextIO) -> RichProgress:
        columns = (BarColumn(20), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
        # Drawn from update() only: no thread draws between erasing the bar and a message.
        console = Console(file=stream)
        bar = RichProgress(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        bar.add_task("", total=self._total, completed=self._start)
        return bar

    def _show(self, env_steps: int, shown: dict[str, Shown]) -> None:
        seconds = time.monotonic() - self._began
        rate = (env_steps - self._start) / seconds if seconds > 0 else 0.0
        left = duration((self._total - env_steps) / rate) if rate > 0 else "?"
        values = [
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
        ]
        done, total, elapsed = f"{env_steps:,}", f"{self._total:,}", duration(seconds)
        if self._bar is None:
            facts = [f"{rate:,.0f} steps/s", f"{elapsed} elapsed", f"{left} left", *values]
            share = 100 * env_steps / max(self._total, 1)
            self._console_logger.info("%s of %s env steps (%.0f %%), %s", done, total, share, ", ".join(facts))
        else:
            text = "  ".join([f"{done}/{total}", f"{rate:,.0f}/s", f"{elapsed}<{left}", *values])
            self._bar.update(self._bar.task_ids[0], completed=env_steps, description=text)
            self._bar.refresh()

    def _erase(self, record: logging.LogRecord) -> bool:
        """A logging filter that lets all pass: the message then starts on an empty line, not behind the bar."""
        if self._stream is not None:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        return True


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in ``"0:12:05"``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}"
