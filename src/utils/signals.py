"""SIGTERM and Ctrl-C as requests: the first is answered where nothing is half done, the second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal ended the program; Sacred and others treat it as Ctrl-C.

    Attributes:
        exit_code: 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequested(Stopped):
    """The first signal, raised by :meth:`StopSignals.check` where the program can be left and resumed."""


class StopSignals:
    """Context manager that turns the first signal into a request and the second into ``Stopped``, at once.

    Ctrl-C counts in background jobs too, whose shells ignore it: losing a run unnoticed is worse than stopping it
    with a checkpoint. Works in the main thread only, as Python's signals do.

    Attributes:
        requested: number of the signal that came first, or ``None``.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises ``StopRequested`` when a signal has come."""
        if self.requested is not None:
            raise StopRequested(self.requested)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise Stopped(number)
        self.requested = number
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"stopping, once all state is saved; a second signal stops at once\n")
