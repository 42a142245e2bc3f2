"""Plays navigation worlds with the hand controller of ``envs.travel_time`` and exact assignments by known costs.

From the folder ``tests``: ``python -m support.hand_control navigation_skills`` prints the successes that
docs/environments/navigation.md quotes; ``key=value`` sets an option.

Shape legend: B worlds, N agents, M landmarks.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment

from envs import REGISTRY
from envs.base import derive_seeds
from envs.travel_time import COAST, DEAD_ZONE

DISTANCE, RANDOM = "distance", "random"
# Costs of each environment, and those among them by which agents are assigned once only.
COSTS = {
    "navigation_speeds": (DISTANCE, "travel_time", "distance_over_acceleration", RANDOM),
    "navigation_skills": (DISTANCE, "travel_time", "mismatch", RANDOM),
}
ONCE = {"mismatch", RANDOM}


def assign(cost, capacity):
    """[B, N] landmarks that minimize the summed cost [B, N, M] within the capacities [B, M]."""
    chosen = np.zeros(cost.shape[:2], np.int64)
    for row, values, places in zip(chosen, cost, capacity, strict=True):
        columns = np.repeat(np.arange(len(places)), places)
        agents, seats = linear_sum_assignment(values[:, columns])
        row[agents] = columns[seats]
    return chosen


def push_towards(position, velocity, target):
    """[...] actions of the hand controller for agents [..., 2]."""
    rest = position + COAST * velocity - target
    size = np.abs(rest)
    axis = (size[..., 1] > size[..., 0]).astype(np.int64)
    positive = np.take_along_axis(rest, axis[..., None], -1)[..., 0] < 0
    return np.where(size.max(-1) > DEAD_ZONE, 1 + 2 * axis + positive, 0)


def play(name, cost, episodes=500, every=10, seed=0, numba=True, **options):
    """Share of successes when agents go where the cost assigns them.

    Args:
        name: registered environment; always all agents and landmarks.
        cost: a field of the environment, ``distance`` or ``random``.
        episodes: how many, each in a world of its own.
        every: steps between assignments.
        seed: of the worlds and of what is drawn here.
        options: of the environment.
    """
    fields = ("capacity",) if cost in (DISTANCE, RANDOM) else ("capacity", cost)
    env = REGISTRY[name](REGISTRY.options(name)(**options), derive_seeds(seed, 0, episodes), fields, numba=numba)
    env.reset()
    rng, rows = np.random.default_rng(seed), np.arange(episodes)[:, None]
    active, success = np.ones(episodes, np.bool_), np.zeros(episodes, np.bool_)
    for step in range(env.info.episode_limit):
        if step == 0 or (step % every == 0 and cost not in ONCE):
            # Ties of the types are broken at random.
            noise = rng.random((episodes, *env.info.field_shapes()["travel_time"]))
            offset = env.position[:, :, None] - env.landmark[:, None]
            costs = {DISTANCE: np.sqrt(np.square(offset).sum(-1)), RANDOM: noise} | dict(env.observation)
            chosen = assign(costs[cost] + 1e-6 * noise, env.capacity)
        result = env.step(push_towards(env.position, env.velocity, env.landmark[rows, chosen]), active.copy())
        success |= active & result.terminated
        active &= ~(result.terminated | result.truncated)
    return float(success.mean())


def main(arguments):
    """Prints the success with each cost."""
    options = {key: int(value) for key, _, value in (word.partition("=") for word in arguments[1:])}
    for cost in COSTS[arguments[0]]:
        sys.stdout.write(f"{cost}: {100 * play(arguments[0], cost, 3000, **options):.1f} %\n")


if __name__ == "__main__":
    main(sys.argv[1:])
