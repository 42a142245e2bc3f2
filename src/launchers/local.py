"""Runs as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class LocalLauncher:
    """One process per slot, one thread each; see :class:`launchers.base.Launcher`.

    Args:
        slots: processes at the same time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def start(self, command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own, which a Ctrl-C on the terminal does not reach."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def poll(self, handle: subprocess.Popen[bytes]) -> int | None:
        """See :class:`launchers.base.Launcher`."""
        code = handle.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self, handle: subprocess.Popen[bytes]) -> None:
        """SIGTERM to the process alone: what it started is its own to end."""
        handle.terminate()

    def kill(self, handle: subprocess.Popen[bytes]) -> None:
        """SIGKILL to all of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(handle.pid, signal.SIGKILL)
        handle.wait()


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container where there is one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cpus
