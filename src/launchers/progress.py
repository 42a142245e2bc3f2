"""How far a run is, read from its files while another process writes them."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from pathlib import Path

# The rate is that of about the last so many seconds.
RATE_SECONDS = 60.0
# The first of these that a run logs is shown.
SHOWN = ("test_success_mean", "test_return_mean", "return_mean")


class RunProgress:
    """Follows one run; reads only what is new.

    Args:
        folder: the run's folder.

    Attributes:
        env_steps: environment steps, up to a heartbeat old.
        latest: metric -> newest value, for the metrics of ``SHOWN``.
    """

    def __init__(self, folder: Path) -> None:
        self.env_steps = 0
        self.latest: dict[str, float] = {}
        self._record, self._metrics = folder / "run.json", folder / "metrics.jsonl"
        # What was written by an earlier session says nothing about the rate of this one.
        self._since = time.time()
        self._beat_at = 0.0
        self._beat = self._logged = self._offset = 0
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def rate(self) -> float | None:
        """Environment steps per second, once the run was seen twice."""
        if len(self._seen) < 2:
            return None
        (start, before), (end, now) = self._seen[0], self._seen[-1]
        return (now - before) / (end - start) if end > start else None

    @property
    def shown(self) -> str:
        """The newest test success or return, such as ``"success 0.82"``; empty before the first."""
        for key in SHOWN:
            if key in self.latest:
                return f"{key.removeprefix('test_').removesuffix('_mean')} {self.latest[key]:.3g}"
        return ""

    def refresh(self) -> None:
        """Looks at the files; costs two ``stat`` where nothing has changed."""
        written_at = max(self._read_metrics(), self._read_record())
        steps = max(self._beat, self._logged)
        if written_at > self._since and (not self._seen or steps > self._seen[-1][1]):
            self._seen.append((written_at, steps))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        self.env_steps = steps

    def _read_record(self) -> float:
        """Reads the heartbeat; returns when it was written, 0 when it is the known one."""
        try:
            beat_at = self._record.stat().st_mtime
            if beat_at == self._beat_at:
                return 0.0
            steps = json.loads(self._record.read_bytes()).get("result")
        except (OSError, ValueError, AttributeError):
            return 0.0
        self._beat_at = beat_at
        self._beat = steps if type(steps) is int else 0
        return beat_at

    def _read_metrics(self) -> float:
        """Reads what was appended; returns when that was written, 0 when there is nothing new."""
        try:
            found = self._metrics.stat()
            if found.st_size == self._offset:
                return 0.0
            if found.st_size < self._offset:  # a resumed run cuts its file back
                self._offset = self._logged = 0
            with self._metrics.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
                end = file.tell()
        except OSError:
            return 0.0
        whole = data.rfind(b"\n") + 1
        self._offset = end - len(data) + whole
        for line in data[:whole].splitlines():
            self._take(line)
        return found.st_mtime

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            key, t, value = entry["key"], entry["t"], entry["value"]
        except (ValueError, KeyError, TypeError):
            return
        self._logged = t
        if key in SHOWN:
            self.latest[key] = math.nan if value is None else value
