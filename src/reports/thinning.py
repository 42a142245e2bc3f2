"""Fewer points of a curve, without hiding what a reader looks for: peaks, drops, gaps, both ends."""

from __future__ import annotations

import math

from reports.run_records import Curve

LEAST = 8


def thin(curve: Curve, limit: int) -> Curve:
    """At most ``limit`` points of a curve; the curve itself where it is short enough.

    The first and the last point stay. The points between are cut into slices of equal count, and each slice keeps its
    smallest and its largest value and, where it has any, its first NaN: a gap stays a gap, a peak stays a peak.

    Args:
        curve: (environment steps, value), by rising steps.
        limit: at least 8.

    Raises:
        ValueError: a smaller limit.
    """
    if limit < LEAST:
        raise ValueError(f"a limit of {limit} points is too small: at least {LEAST}")
    if len(curve) <= limit:
        return curve
    has_gaps = any(math.isnan(value) for _, value in curve)
    slices = (limit - 2) // (3 if has_gaps else 2)
    inner = len(curve) - 2
    kept = {0, len(curve) - 1}
    for part in range(slices):
        kept |= _landmarks(curve, 1 + part * inner // slices, 1 + (part + 1) * inner // slices)
    return [curve[index] for index in sorted(kept)]


def _landmarks(curve: Curve, start: int, stop: int) -> set[int]:
    """Indices of the smallest, the largest and the first NaN value of ``curve[start:stop]``."""
    finite = [index for index in range(start, stop) if not math.isnan(curve[index][1])]
    gap = next((index for index in range(start, stop) if math.isnan(curve[index][1])), None)
    kept = set() if gap is None else {gap}
    if finite:
        kept |= {min(finite, key=lambda index: curve[index][1]), max(finite, key=lambda index: curve[index][1])}
    return kept
