"""The arrays that hold B skirmishes, what their units are, and the arrays that show them.

Shape legend: B worlds, N allies, E enemies, U = N + E units (allies first).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.skirmish_maps import MAP_SIDE, Group, LoadedMap, Strength, Unit

Array = NDArray[Any]
# Game loops of a second, on the clock that unit data and speeds are given in.
LOOPS_PER_SECOND = 16
# Shields regenerate 2 points a second once nothing has hurt the unit for 10 seconds.
SHIELD_REGENERATION = 2.0 / LOOPS_PER_SECOND
SHIELD_DELAY = 10 * LOOPS_PER_SECOND
N_DRAWS = 32
# Colossus, stalker, zealot.
_ALLY_ORDER = {4: 0, 74: 1, 73: 2}


# Rows of ``World.units``: place, life (0 = dead), shield, game loops until the next volley.
X, Y, LIFE, SHIELD, COOLDOWN, N_UNIT = range(6)
# Rows of ``World.orders``: loops since the unit was hurt; the unit that an enemy fights or an ally was told to; the
# unit that its volley in flight is for (-1 = none, of both), loops until that arrives; volleys so far.
CALM, TARGET, AIMED, FLYING, VOLLEYS, N_ORDER = range(6)
# Actions: 0 for the dead, 1 stop, 2 to 5 moves, then one attack for each enemy.
NO_OP, STOP, NORTH, SOUTH, EAST, WEST, FIRST_ATTACK = range(7)
# Rows of the scratch array of one world's units: how far each moves in this loop, where allies are sent, life plus
# shield before the step, and what volleys in flight will leave of that of enemies, before the step and after it.
STEP_X, STEP_Y, TO_X, TO_Y, BEFORE, SPARED_BEFORE, SPARED, N_SCRATCH = range(8)


class World(NamedTuple):
    """Everything that the coming steps of B worlds depend on; steps change it in place.

    Attributes:
        units: [B, 5, U] float64, rows above.
        orders: [B, 5, U] int64, rows above.
        goal: [B, E, 2] where each enemy goes when nobody is near.
        last_action: [B, N] int64; -1 before the first.
        steps: [B] int64.
        draws: [B, U, 32] float32 numbers in [0, 1), used in turn by a unit's volleys; drawn for each episode.
    """

    units: Array
    orders: Array
    goal: Array
    last_action: Array
    steps: Array
    draws: Array


# Rows of the array that says what each unit is (as :class:`envs.skirmish_maps.Unit`); times in game loops. The last:
# which of the columns for types is the unit's.
(
    MAX_LIFE,
    MAX_SHIELD,
    ARMOR,
    ARMORED,
    RADIUS,
    SPEED,
    REACH,
    DAMAGE,
    BONUS,
    HITS,
    PERIOD,
    FLIGHT,
    REGENERATION,
    MAX_COOLDOWN,
    TYPE_COLUMN,
) = range(15)


def empty_worlds(b: int, n: int, e: int) -> World:
    """B worlds in which everybody is dead."""
    return World(
        units=np.zeros((b, N_UNIT, n + e)),
        orders=np.zeros((b, N_ORDER, n + e), dtype=np.int64),
        goal=np.zeros((b, e, 2)),
        last_action=np.full((b, n), -1, dtype=np.int64),
        steps=np.zeros(b, dtype=np.int64),
        draws=np.zeros((b, n + e, N_DRAWS), dtype=np.float32),
    )


def expand(groups: tuple[Group, ...]) -> list[Group]:
    """One entry for each unit."""
    return [group for group in groups for _ in range(group.count)]


def make_kinds(given: LoadedMap, strength: Strength) -> Array:
    """[15, U] float64: what the units of a map are; the level of difficulty changes the enemies."""
    allies = [given.units[group.unit] for group in expand(given.layout.allies)]
    allies.sort(key=lambda unit: ally_order(unit.type))
    enemies = [_weakened(given.units[group.unit], strength) for group in expand(given.layout.enemies)]
    # SMAC counts the agents' copies in another order than the game's units.
    columns = [*_ranks([ally_order(unit.type) for unit in allies]), *_ranks([unit.type for unit in enemies])]
    rows = [[*_row(unit), column] for unit, column in zip((*allies, *enemies), columns, strict=True)]
    return np.array(rows).T.copy()


def _ranks(keys: list[int]) -> list[int]:
    known = sorted(set(keys))
    return [known.index(key) for key in keys]


def _row(unit: Unit) -> list[float]:
    second = LOOPS_PER_SECOND
    return [
        *(unit.life, unit.shield, unit.armor, unit.armored, unit.radius, unit.speed / second, unit.range),
        *(unit.damage, unit.bonus_armored, unit.hits, unit.period * second, unit.flight),
        *(unit.life_regeneration / second, unit.max_cooldown),
    ]


def ally_order(unit_type: int) -> int:
    """Agents are numbered by the type of the copies that they command, whose order is not that of the game's units."""
    return _ALLY_ORDER.get(unit_type, unit_type)


def _weakened(unit: Unit, strength: Strength) -> Unit:
    return unit.model_copy(
        update={
            "period": unit.period * strength.cooldown,
            "damage": unit.damage * strength.damage,
            "bonus_armored": unit.bonus_armored * strength.damage,
            "speed": unit.speed * strength.speed,
        }
    )


def walkable(given: LoadedMap) -> Array:
    """[x, y] bool: the cells that units can be on."""
    cells = np.zeros((MAP_SIDE, MAP_SIDE), dtype=np.bool_)
    for x0, y0, x1, y1 in given.layout.arena:
        cells[x0:x1, y0:y1] = True
    return cells
