"""Records what the real smac package shows and rewards, from the stand-in game: tests/golden/smac_<map>.npz.

    PYTHONPATH=src:tests python tests/sc2/record.py        (needs tests/sc2/requirements.txt)

Enemies are in the order of the stand-in's units, which is that of ``envs.skirmish``: smac numbers enemies as the game
lists them. The ``sc2`` environment sorts them; that is no part of this record.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from smac.env import StarCraft2Env
from support import sc2_game

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
# Options that a map is recorded with, beside smac's defaults.
VARIANTS: dict[str, list[dict[str, bool]]] = {
    "3m": [{"obs_last_action": True, "state_last_action": False}, {"obs_instead_of_state": True}],
    "8m": [{"obs_pathing_grid": True}],
    "2m_vs_1z": [{"obs_all_health": False, "obs_own_health": False}],
    "3s_vs_5z": [{"reward_sparse": True}],
    "2s3z": [{"obs_timestep_number": True, "state_timestep_number": True, "obs_last_action": True}],
    "3s5z": [],
    "5m_vs_6m": [{"reward_only_positive": False}],
    "8m_vs_9m": [{"reward_scale": False}],
}
# Rows kept of an episode, apart from those in which somebody dies.
KEPT = 12
Row = dict[str, Any]


def unit_table(game: StarCraft2Env) -> np.ndarray:
    """[5, U] x, y, life, shield, cooldown; allies first. The dead keep only their place."""
    units = [*game.agents.values(), *game.enemies.values()]
    rows = [(unit.pos.x, unit.pos.y, unit.health, unit.shield, unit.weapon_cooldown) for unit in units]
    table = np.array(rows, dtype=np.float32).T
    table[2:, table[2] <= 0] = 0.0
    return table


def choose(avail: list[list[int]], aggressive: bool, rng: np.random.Generator) -> list[int]:
    """A legal action of each agent; the aggressive attack whom they reach, and else wait."""
    chosen = []
    for legal in map(np.flatnonzero, avail):
        attacks = legal[legal >= 6]
        if aggressive and len(attacks):
            legal = attacks[:1]
        elif aggressive:
            legal = legal[:1]
        chosen.append(int(rng.choice(legal)))
    return chosen


def episode(game: StarCraft2Env, aggressive: bool, rng: np.random.Generator) -> list[Row]:
    """Every step of an episode; the first row is that of the reset."""
    game.reset()
    rows: list[Row] = []
    actions, reward, terminated = [-1] * game.n_agents, 0.0, False
    before = unit_table(game)
    while True:
        units = unit_table(game)
        rows.append(
            {
                "units": units,
                "before": before[2] + before[3],
                "last_action": actions,
                "steps": len(rows),
                "obs": game.get_obs(),
                "state": game.get_state(),
                "avail_actions": game.get_avail_actions(),
                "reward": reward,
            }
        )
        if terminated:
            return rows
        before, actions = units, choose(game.get_avail_actions(), aggressive, rng)
        reward, terminated, _ = game.step(actions)


def thinned(rows: list[Row]) -> list[Row]:
    """The steps in which somebody dies, the first, the last, and some between."""
    spread = set(np.linspace(0, len(rows) - 1, KEPT).astype(int))
    lives = [int((row["units"][2] > 0).sum()) for row in rows]
    deaths = {t for t in range(1, len(rows)) if lives[t] < lives[t - 1]}
    return [rows[t] for t in sorted(spread | deaths)]


def record(name: str, options: dict[str, bool]) -> dict[str, np.ndarray]:
    """A lost and a won episode with these options: field -> [T, ...]."""
    rng, rows = np.random.default_rng(7), []
    for aggressive, cooldown in ((False, "1.2"), (True, "20")):
        os.environ[sc2_game.COOLDOWN] = cooldown
        game = StarCraft2Env(map_name=name, seed=11, **options)
        rows += thinned(episode(game, aggressive, rng))
        game.close()
    types = {"last_action": np.int8, "steps": np.int16, "avail_actions": np.int8, "reward": np.float64}
    return {key: np.array([row[key] for row in rows], dtype=types.get(key, np.float32)) for key in rows[0]}


def main() -> None:
    """Writes the files of all maps."""
    with tempfile.TemporaryDirectory() as folder:
        sc2_game.install(Path(folder) / "game")
        os.environ["SC2PATH"] = str(Path(folder) / "game")
        for name, more in VARIANTS.items():
            variants = [{}, *more]
            arrays = {"options": np.array([json.dumps(options) for options in variants])}
            for index, options in enumerate(variants):
                arrays |= {f"{index}.{key}": value for key, value in record(name, options).items()}
            np.savez_compressed(GOLDEN / f"smac_{name}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
