"""Schedules: how exploration decays, and how often a learner updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def linear(start: float, finish: float, fraction: float) -> float:
    """From ``start`` at fraction 0 to ``finish`` at fraction 1, constant outside."""
    return start + (finish - start) * min(max(fraction, 0.0), 1.0)


class UpdateSchedule:
    """Gradient updates per unit of experience, counted and never caught up.

    Experience gathered while the learner cannot update yet (too few episodes) earns no updates, so the ratio does
    not depend on the number of environments, and training never starts with a burst.

    Args:
        per_update: units of experience (environment steps or episodes) for one update.
    """

    def __init__(self, per_update: float) -> None:
        self.per_update = per_update
        self._seen = 0
        self._credit = 0.0

    def due(self, count: int, ready: bool) -> int:
        """Updates to do now, when ``count`` units have been gathered since the start of the run."""
        self._credit += (count - self._seen) / self.per_update if ready else 0.0
        self._seen = count
        updates = int(self._credit + 1e-9)
        self._credit -= updates
        return updates

    def state_dict(self) -> dict[str, Any]:
        """Experience seen and credit left."""
        return {"seen": self._seen, "credit": self._credit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self._seen, self._credit = state["seen"], state["credit"]
