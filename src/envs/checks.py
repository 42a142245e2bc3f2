"""Checks an environment against the contract of ``envs.base``: for tests, and for authors of new environments.

From the folder ``src``: ``python -m envs.checks navigation n_agents=5 n_landmarks=5``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import combinations

import numpy as np

from components.config_checks import Owner, validate
from components.config_layers import Layer, merge, override_layer
from components.errors import UserError
from components.registry import did_you_mean
from envs import REGISTRY
from envs.base import Array, VectorEnv, derive_seeds
from envs.checked_play import ContractError, Frame, Player
from envs.vector import in_process

# ``make(seeds, fields)`` builds one environment per seed that observes these fields.
Make = Callable[[Sequence[int], Sequence[str]], VectorEnv]
_NO_CHANCE = "--no-chance"


def check_env(
    make: Make,
    n_steps: int = 100,
    *,
    n_envs: int = 3,
    seed: int = 0,
    random: bool = True,
    fields: Sequence[str] | None = None,
    name: str = "",
) -> None:
    """Checks an environment by playing random episodes.

    For a ``MultiAgentEnv``: ``make = lambda seeds, fields: SerialEnvs([MyEnv(options, s) for s in seeds], seeds,
    fields)``; for a ``VectorEnv``: ``make = partial(MyEnv, options)``.

    Args:
        make: ``make(seeds, fields)`` builds one environment per seed that observes these fields.
        n_steps: steps of each of the comparisons, at least; whole episodes are played.
        n_envs: environments that are stepped together, at least 2.
        seed: the environments' seeds derive from it.
        random: whether episodes of different seeds differ; False for a game without chance.
        fields: the fields to observe, ``avail_actions`` among them; all that the environment has when absent.
        name: how messages call the environment; its class when absent.

    Raises:
        ContractError: the first violation, with environment, field, step and what was expected.
    """
    if n_envs < 2:
        raise ValueError(f"n_envs = {n_envs}: the checks compare environments, so use at least 2")
    seeds = derive_seeds(seed, 0, n_envs)
    if fields is None:
        probe = make(seeds[:1], ["avail_actions"])
        fields = list(probe.info.field_shapes())
        probe.close()
    players: list[Player] = []
    try:
        for _ in range(2):
            envs = make(seeds, fields)
            players.append(Player(name or type(envs).__name__, envs, fields))
        first, second = players
        _check_seeds(first, seeds)
        _check_determinism(first, second, n_steps, seed, random)
        _check_resume(first, second, n_steps, seed)
        _check_inactive(first, second, seed)
    finally:
        for player in players:
            player.envs.close()


def _check_seeds(player: Player, seeds: Sequence[int]) -> None:
    found = list(player.envs.seeds)
    if found != list(seeds):
        player.fail("seeds", f"it is {found}", f"the seeds that it was made with, {list(seeds)}")
    if player.envs.n_envs != len(seeds):
        player.fail("n_envs", f"it is {player.envs.n_envs}", f"one environment per seed, {len(seeds)}")


def _check_determinism(first: Player, second: Player, n_steps: int, seed: int, random: bool) -> None:
    frames = first.play(n_steps, np.random.default_rng(seed))
    again = second.play(n_steps, np.random.default_rng(seed))
    everyone = slice(None)
    for frame, other in zip(frames, again, strict=False):
        _compare(first, frame, other, everyone, "two environments of the same seeds differ", "the same episodes")
    for a, b in combinations(range(first.envs.n_envs) if random else (), 2):
        if all(_equal(value[a], value[b]) for frame in frames for value in frame.values.values()):
            found = f"environments {a} and {b}, of different seeds, play the same episodes"
            first.fail("seeds", found, "different ones (or the argument random=False, for a game without chance)")


def _check_resume(first: Player, second: Player, n_steps: int, seed: int) -> None:
    """States taken between episodes and within one continue in another object as they do here."""
    everyone = np.ones(first.envs.n_envs, dtype=np.bool_)
    for steps in (0, max(first.info.episode_limit // 2, 1)):
        rng = np.random.default_rng(seed + 1)
        if steps:
            first.start()
        while first.t < steps and first.active.any():
            first.step(first.draw(rng), everyone)
        found = f"the state_dict of {first.when} does not continue in another object as it did"
        state, shown, bookmark = first.envs.state_dict(), first.observed(), (first.episode, first.t, first.active)
        twin = deepcopy(rng)
        played = first.play(n_steps, rng)
        second.envs.load_state_dict(state)
        second.episode, second.t, second.active = bookmark
        restored = Frame(second.when, second.observed())
        _compare(second, Frame(second.when, shown), restored, bookmark[2], found, "the observation of that step")
        for frame, other in zip(played, second.play(n_steps, twin), strict=False):
            _compare(second, frame, other, slice(None), found, "the same episodes")


def _check_inactive(first: Player, second: Player, seed: int) -> None:
    """An environment that pauses neither disturbs the others nor is disturbed by them."""
    rng = np.random.default_rng(seed + 2)
    second.envs.load_state_dict(first.envs.state_dict())
    first.start()
    second.start()
    second.episode = first.episode
    everyone = np.ones(first.envs.n_envs, dtype=np.bool_)
    others = everyone.copy()
    others[0] = False
    played: list[tuple[Array, Frame]] = []
    while first.active.all() and len(played) < 5:
        actions = first.draw(rng)
        frame = first.step(actions, everyone)
        played.append((actions, frame))
        found = "it differs when environment 0 is not active"
        _compare(second, frame, second.step(actions, others), others, found, "environments not to affect each other")
    second.t = 0
    for actions, frame in played:
        found = "environment 0 does not go on where it stopped being active"
        _compare(second, frame, second.step(actions, ~others), ~others, found, "it to keep its state")


def _compare(player: Player, frame: Frame, other: Frame, rows: Array | slice, found: str, expected: str) -> None:
    for field in sorted(set(frame.values) | set(other.values)):
        same = field in frame.values and field in other.values
        if not (same and _equal(frame.values[field][rows], other.values[field][rows])):
            player.fail(f"{field!r}", found, expected, frame.when)


def _equal(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def main(arguments: Sequence[str]) -> int:
    """Checks a registered environment.

    Args:
        arguments: its name, ``--no-chance`` for a game in which all episodes start and go the same, ``key=value`` for
            its options.

    Returns:
        The exit code: 0 the contract holds, 1 it is broken, 2 the user's mistake (both told on stderr).
    """
    try:
        if not arguments:
            known = ", ".join(REGISTRY)
            raise UserError(f"usage: python -m envs.checks NAME [{_NO_CHANCE}] [KEY=VALUE ...]; NAME is one of {known}")
        pairs = [word for word in arguments[1:] if word != _NO_CHANCE]
        _check_registered(arguments[0], pairs, random=_NO_CHANCE not in arguments)
    except (UserError, ContractError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UserError) else 1
    sys.stdout.write(f"{arguments[0]}: the contract holds\n")
    return 0


def _check_registered(name: str, pairs: Sequence[str], random: bool) -> None:
    given: Layer = merge(override_layer(pair) for pair in pairs)
    owner = Owner(f"environment {name!r}", REGISTRY.options(name))
    known = sorted(owner.keys())
    errors = [f"unknown option {key!r}{did_you_mean(key, known)}" for key in given.values if key not in known]
    options = validate(owner, given, errors)
    if options is None or errors:
        raise UserError("\n".join(errors))
    check_env(lambda seeds, fields: in_process(name, options, seeds, fields), name=name, random=random)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
