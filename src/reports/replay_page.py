"""The replay page: one file that shows the episodes of one policy, or of two from the same initial states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import write_text_atomic
from reports.embedding import page_with_data, require_replaceable

PAGE = "replay.html"
TEMPLATE = "replay.html"
# Stands in the head of every replay page, so that no other file is ever overwritten.
GENERATOR = "lpmarl replay"
MOST_PANELS = 2
SAME = ("version", "env", "env_args", "seed", "n_agents", "n_tasks")


def replay_page(panels: Sequence[Mapping[str, Any]]) -> str:
    """The HTML text of a replay.

    Args:
        panels: one or two of ``runners.replay.record_panel``, of the same seed and environment.

    Raises:
        UserError: the panels do not show the same episodes.
    """
    if not 1 <= len(panels) <= MOST_PANELS:
        raise UserError(f"a replay page shows one or two policies, not {len(panels)}")
    for other in panels[1:]:
        require_same_start(panels[0], other)
    return page_with_data(TEMPLATE, {"panels": list(panels)})


def require_same_start(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises ``UserError`` when two panels do not start their episodes from the same states."""
    differing = [key for key in SAME if first[key] != other[key]]
    if differing:
        lines = [f"  {key}: {first[key]} and {other[key]}" for key in differing]
        raise UserError(
            "two policies side by side must play the same episodes, but they differ in\n" + "\n".join(lines)
        )
    for number, pair in enumerate(zip(first["episodes"], other["episodes"], strict=True)):
        if any(pair[0][name][0] != pair[1][name][0] for name in ("agents", "tasks", "capacity")):
            raise UserError(f"episode {number} starts from another state: the environment does not follow its seed")


def write_replay_page(path: Path, panels: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Raises:
        UserError: there is something else at ``path``, or it cannot be written.
    """
    require_replaceable(path, GENERATOR)
    try:
        write_text_atomic(path, replay_page(panels))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path
