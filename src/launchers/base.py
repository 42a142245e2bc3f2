"""What starts processes: the interface between the scheduler and a machine, a cluster or a pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Launcher(Protocol):
    """Starts commands somewhere; a handle is whatever it needs to find one again.

    Attributes:
        slots: commands that may go on at the same time.
    """

    slots: int

    def start(self, command: Sequence[str], log_path: Path) -> Any:
        """Starts a command in the current working directory, output appended to ``log_path``; returns its handle."""

    def poll(self, handle: Any) -> int | None:
        """The exit code, 128 + the signal's number for a command that a signal ended; ``None`` while it goes on."""

    def stop(self, handle: Any) -> None:
        """Asks the command to save its state and end (SIGTERM)."""

    def kill(self, handle: Any) -> None:
        """Ends the command and everything that it started, at once."""
