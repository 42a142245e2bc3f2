"""Compiled effect of a volley in a skirmish: what it leaves of a unit, and what those still in flight will leave.

Shape legend: N allies (agents), E enemies (tasks), U = N + E units (allies first).
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_world import AIMED, ARMOR, ARMORED, BONUS, DAMAGE, HITS, LIFE, SHIELD

Array = NDArray[Any]

# A hit does at least this much, whatever the armor.
LEAST_DAMAGE = 0.5


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def struck(kinds: Array, i: int, k: int, shield: float, life: float) -> tuple[float, float]:
    """Shield and life of unit k after a volley of unit i: shields first, then the life, which armor protects.

    Args:
        kinds: [15, U] what the units are.
        i: who fired.
        k: who is hit.
        shield: of unit k.
        life: of unit k; 0 or less comes out when it dies.
    """
    damage = kinds[DAMAGE, i] + kinds[BONUS, i] * kinds[ARMORED, k]
    for _ in range(int(kinds[HITS, i])):
        absorbed = min(shield, damage)
        shield -= absorbed
        if absorbed < damage:
            life -= max(damage - absorbed - kinds[ARMOR, k], LEAST_DAMAGE)
    return shield, life


@njit(cache=True, nogil=True, error_model="numpy")
def foresee(n: int, units: Array, orders: Array, kinds: Array, spared: Array) -> None:
    """Life and shield that the volleys of allies in flight will leave of each enemy; 0 when it dies of them.

    Args:
        n: allies among the units.
        units: [5, U], as ``World.units``.
        orders: [5, U], as ``World.orders``.
        kinds: [15, U].
        spared: [U] to fill; allies' columns stay.
    """
    for k in range(n, units.shape[1]):
        spared[k] = units[LIFE, k] + units[SHIELD, k]
    for first in range(n):
        k = orders[AIMED, first]
        if k >= n:
            shield, life = units[SHIELD, k], units[LIFE, k]
            for i in range(n):
                if orders[AIMED, i] == k:
                    shield, life = struck(kinds, i, k, shield, life)
            spared[k] = shield + life if life > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def volleys_needed(n: int, units: Array, kinds: Array, k: int) -> int:
    """Volleys of the average living ally that unit k dies of."""
    on_shield = on_life = allies = 0.0
    for i in range(n):
        if units[LIFE, i] > 0.0:
            damage = kinds[DAMAGE, i] + kinds[BONUS, i] * kinds[ARMORED, k]
            on_shield += kinds[HITS, i] * damage
            on_life += kinds[HITS, i] * max(damage - kinds[ARMOR, k], LEAST_DAMAGE)
            allies += 1.0
    if allies == 0.0:
        return 1
    # A volley that would leave a trace of life by rounding counts as deadly.
    return math.ceil(units[SHIELD, k] * allies / on_shield + units[LIFE, k] * allies / on_life - 1e-9)
