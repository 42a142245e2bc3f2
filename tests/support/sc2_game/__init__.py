"""A stand-in for StarCraft II, for tests of the ``sc2`` environment: pysc2 starts it as if it were the game.

It speaks as much of the game's protocol as SMAC uses; the battles are those of ``envs.skirmish_kernel``. What it shows
is never a result about StarCraft.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from envs.skirmish_maps import map_names

BUILD = "Base75689"
ROOT = Path(__file__).resolve().parents[3]

# Environment variables that the game reads when it starts.
# Nth step request at which the process dies, or from which on it answers nothing.
DIE_AT, HANG_AT = "SC2_GAME_DIE_AT", "SC2_GAME_HANG_AT"
# A file: DIE_AT and HANG_AT happen only while it does not exist, and make it.
ONCE = "SC2_GAME_ONCE"
# Set: nobody listens.
REFUSE = "SC2_GAME_REFUSE"
# Step requests between the death of all units and the new ones.
LATE = "SC2_GAME_LATE"
# Level of the enemies in ``config/skirmish/maps``, and the factor on the time between their volleys.
DIFFICULTY, COOLDOWN = "SC2_GAME_DIFFICULTY", "SC2_GAME_COOLDOWN"
FAULTS = (DIE_AT, HANG_AT, ONCE, REFUSE, LATE, DIFFICULTY, COOLDOWN)


def install(folder: Path) -> Path:
    """Makes a folder that looks like an installed game with SMAC's maps.

    Args:
        folder: where; ``SC2PATH`` is to name it.

    Returns:
        The executable.
    """
    maps = folder / "Maps" / "SMAC_Maps"
    maps.mkdir(parents=True)
    for name in map_names():
        # The real file's content goes to the game as bytes that nobody else reads.
        (maps / f"{name}.SC2Map").write_text(name)
    game = folder / "Versions" / BUILD / "SC2_x64"
    game.parent.mkdir(parents=True)
    path = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    command = f"exec {shlex.quote(sys.executable)} -m support.sc2_game.server"
    game.write_text(f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(path)} OMP_NUM_THREADS=1\n{command} "$@"\n')
    game.chmod(0o755)
    return game
