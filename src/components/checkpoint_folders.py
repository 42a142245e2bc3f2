"""Where a run keeps its checkpoints, and which of them to use.

checkpoints/<steps>/  networks and small state, all kept: for evaluation, replays, new runs
resume/<steps>/       everything, the replay buffer included; the newest two, so that a damaged one has a fallback
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from components.checkpoint import MANIFEST, Checkpoint, NewerVersion, load_checkpoint
from components.errors import UserError

MODELS, RESUME = "checkpoints", "resume"
KEPT = 2

T = TypeVar("T")


def model_folder(run: Path, env_steps: int) -> Path:
    """Where the model after so many environment steps is."""
    return run / MODELS / str(env_steps)


def resume_folder(run: Path, env_steps: int) -> Path:
    """Where the full state after so many environment steps is."""
    return run / RESUME / str(env_steps)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of ``checkpoints/`` or ``resume/``, newest (most environment steps) first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def drop_others(run: Path, env_steps: int) -> None:
    """Keeps the full state after so many environment steps and the one before; those beyond could not be resumed."""
    found = checkpoints_in(run / RESUME)
    kept = [folder for folder in found if int(folder.name) <= env_steps][:KEPT]
    for folder in found:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def newest(candidates: Sequence[Path], read: Callable[[Path], T], warn: Callable[[str], None]) -> tuple[Path, T] | None:
    """The first candidate that can be read; tells which were damaged and what is used instead.

    Raises:
        NewerVersion: a candidate was written by a newer lpmarl.
    """
    damaged = []
    for folder in candidates:
        try:
            found = read(folder)
        except NewerVersion:
            raise
        except UserError as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            warn(f"{message}. Using the checkpoint before it: {folder}")
        return folder, found
    for message in damaged:
        warn(f"{message}. No other checkpoint can be used")
    return None


def load_model(path: Path, warn: Callable[[str], None]) -> tuple[Path, Checkpoint]:
    """The checkpoint at ``path``, or the newest sound one of the run at ``path``.

    Args:
        path: a checkpoint's folder or a run's folder.
        warn: is told of damaged checkpoints that were passed over.

    Raises:
        UserError: there is none, listing what is there.
    """
    path = Path(path)
    if (path / MANIFEST).is_file() or not path.is_dir():
        return path, load_checkpoint(path)
    candidates = sorted(
        [*checkpoints_in(path / MODELS), *checkpoints_in(path / RESUME)],
        key=lambda found: int(found.name),
        reverse=True,
    )
    found = newest(candidates, load_checkpoint, warn)
    if found is None:
        there = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise UserError(f"no checkpoint in {path}: give a run's folder or a checkpoint's; there is: {there}")
    return found


def newest_full(run: Path, check: Callable[[Path], object], warn: Callable[[str], None]) -> Path | None:
    """The newest full state of a run that passes ``check``, or ``None``."""
    found = newest(checkpoints_in(run / RESUME), check, warn)
    return None if found is None else found[0]
