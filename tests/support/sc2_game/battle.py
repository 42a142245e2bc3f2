"""One battle of the skirmish simulator, played by unit tags and game loops as the game's protocol wants it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from support import sc2_game

from envs.skirmish import ACQUIRE, Starts
from envs.skirmish_kernel import TARGETS, Rules, play_loops
from envs.skirmish_maps import load_map
from envs.skirmish_world import (
    AIMED,
    COOLDOWN,
    LIFE,
    MAX_LIFE,
    MAX_SHIELD,
    N_SCRATCH,
    SHIELD,
    TARGET,
    TO_X,
    TO_Y,
    TYPE_COLUMN,
    X,
    Y,
    empty_worlds,
    expand,
    make_kinds,
    walkable,
)

# Number of the first of the copies that SMAC's maps have of their agents' units; the others follow in SMAC's order.
FIRST_COPY = 1970
# Tags of one generation of units; a new one has other tags.
GENERATION = 1000


@dataclass(frozen=True)
class Soldier:
    """A living unit as the protocol shows it; ``owner`` is 1 for the agents and 2 for their enemies."""

    tag: int
    owner: int
    unit_type: int
    x: float
    y: float
    life: float
    max_life: float
    shield: float
    max_shield: float
    cooldown: float


class Battle:
    """Both sides on one map; when nobody lives they start anew.

    Args:
        name: the map, one of ``config/skirmish/maps``.
        seed: of the starting places and volleys.
    """

    def __init__(self, name: str, seed: int) -> None:
        given = load_map(name)
        strength = given.strength(os.environ.get(sc2_game.DIFFICULTY, "medium"))  # type: ignore[arg-type]
        if sc2_game.COOLDOWN in os.environ:
            strength = strength.model_copy(update={"cooldown": float(os.environ[sc2_game.COOLDOWN])})
        self._kinds = make_kinds(given, strength)
        self._n, e = len(expand(given.layout.allies)), len(expand(given.layout.enemies))
        copies = FIRST_COPY + self._kinds[TYPE_COLUMN, : self._n]
        enemies = [given.units[group.unit].type for group in expand(given.layout.enemies)]
        self._types = [*(int(copy) for copy in copies), *enemies]
        self.cells = walkable(given)
        self._rules = Rules(self.cells, 0, 0.0, ACQUIRE, strength.reaction, TARGETS[strength.targets], 0)
        self._starts = Starts(given, None)
        self._world = empty_worlds(1, self._n, e)
        self._scratch = np.zeros((N_SCRATCH, self._n + e))
        self._rng = np.random.default_rng(seed)
        self._late = self._wait = int(os.environ.get(sc2_game.LATE, "0"))
        self._generation = 0
        self._spawn()
        # Compiles, so that no step of a test takes seconds.
        self.step(0)

    def _spawn(self) -> None:
        world, n = self._world, self._n
        drawn = self._rng.random((1, self._starts.n_draws + world.draws[0].size))
        places, world.goal[:] = self._starts.place(drawn)
        world.units[:] = 0.0
        world.units[:, [X, Y]] = places.transpose(0, 2, 1)
        world.units[:, LIFE], world.units[:, SHIELD] = self._kinds[MAX_LIFE], self._kinds[MAX_SHIELD]
        world.draws[:] = drawn[:, self._starts.n_draws :].reshape(world.draws.shape)
        world.orders[:] = 0
        world.orders[:, [TARGET, AIMED]] = -1
        self._scratch[[TO_X, TO_Y], :n] = world.units[0, [X, Y], :n]
        self._generation += 1
        self._wait = self._late

    def _row(self, tag: int) -> int | None:
        """The living unit of a tag."""
        generation, row = divmod(tag, GENERATION)
        living = generation == self._generation and self._world.units[0, LIFE, row] > 0
        return row if living else None

    def move(self, tag: int, x: float, y: float) -> None:
        """Sends an agent somewhere."""
        row = self._row(tag)
        if row is not None:
            self._scratch[[TO_X, TO_Y], row] = x, y
            self._world.orders[0, TARGET, row] = -1

    def stop(self, tag: int) -> None:
        """Lets an agent stand where it is."""
        row = self._row(tag)
        if row is not None:
            self.move(tag, *self._world.units[0, [X, Y], row])

    def attack(self, tag: int, target: int) -> None:
        """Lets an agent fight a unit."""
        row, other = self._row(tag), self._row(target)
        if row is not None and other is not None:
            self._world.orders[0, TARGET, row] = other

    def kill(self, tags: Iterable[int]) -> None:
        """Units die at once."""
        for row in map(self._row, tags):
            if row is not None:
                self._world.units[0, LIFE:, row] = 0.0

    def step(self, loops: int) -> None:
        """Plays game loops; where nobody lives after them, both sides start anew."""
        world, rules = self._world, self._rules._replace(loops=loops)
        units, alive = world.units[0], world.units[0, LIFE] > 0
        play_loops(
            self._n, units, world.orders[0], world.draws[0], world.goal[0], self._kinds, rules, alive, self._scratch
        )
        if not alive.any():
            if self._wait == 0:
                self._spawn()
            else:
                self._wait -= 1

    def soldiers(self) -> list[Soldier]:
        """The living, agents first."""
        units, kinds = self._world.units[0], self._kinds
        return [
            Soldier(
                *(self._generation * GENERATION + row, 1 if row < self._n else 2, self._types[row]),
                *(units[X, row], units[Y, row], units[LIFE, row], kinds[MAX_LIFE, row]),
                *(units[SHIELD, row], kinds[MAX_SHIELD, row], units[COOLDOWN, row]),
            )
            for row in np.flatnonzero(units[LIFE] > 0)
        ]
