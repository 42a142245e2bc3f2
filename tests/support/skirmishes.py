"""Skirmishes of a test's own making: units at given places, played action by action."""

import numpy as np

from envs.skirmish import Skirmish, SkirmishOptions
from envs.skirmish_world import LIFE, SHIELD, X, Y

EVERYTHING = ("obs", "state", "avail_actions", "agent_feats", "task_feats", "agent_alive", "task_alive", "capacity")
STOP, NORTH, SOUTH, EAST, WEST, ATTACK = 1, 2, 3, 4, 5, 6


def write_map(folder, allies, enemies, **more):
    """A map file: ``allies`` and ``enemies`` are lists of (unit, x, y); returns its path."""
    side = {"allies": allies, "enemies": enemies}
    lines = ["limit: 50", "spread: 0", "goal: [16, 16]"]
    lines = [line for line in lines if line.split(":")[0] not in more]
    for name, units in side.items():
        guard = ", guard: true" if name == "enemies" and more.get("guard") else ""
        lines += [f"{name}:", *(f"  - {{unit: {unit}, at: [{x}, {y}]{guard}}}" for unit, x, y in units)]
    lines += [f"{key}: {value}" for key, value in more.items() if key != "guard"]
    path = folder / "own.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def start(map_name, n_envs=1, fields=EVERYTHING, **options):
    """B skirmishes that have been reset."""
    env = Skirmish(SkirmishOptions(map_name=map_name, **options), list(range(n_envs)), fields)
    env.reset()
    return env


def step(env, *actions):
    """One step of all of them with the same actions."""
    return env.step(np.tile(np.array(actions, dtype=np.int64), (env.n_envs, 1)), np.ones(env.n_envs, dtype=np.bool_))


def units(env, world=0):
    """Places [U, 2], life [U] and shield [U] of one world."""
    rows = env._world.units[world]
    return rows[[X, Y]].T.copy(), rows[LIFE].copy(), rows[SHIELD].copy()


def win(env, most=400):
    """Plays "everybody attacks the first enemy that it reaches, else walks east" until all worlds have ended."""
    active, total = np.ones(env.n_envs, dtype=np.bool_), np.zeros(env.n_envs)
    for _ in range(most):
        avail = env.observation["avail_actions"]
        attack = avail[..., ATTACK:].argmax(-1) + ATTACK
        actions = np.where(avail[..., ATTACK:].any(-1), attack, np.where(avail[..., EAST], EAST, STOP))
        actions = np.where(avail[..., 0] > 0, 0, actions)
        result = env.step(actions, active)
        total += result.reward * active
        active &= ~(result.terminated | result.truncated)
        if not active.any():
            return total
    raise AssertionError("the battle does not end")
