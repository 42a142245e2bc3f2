"""The LP with a strictly convex regularizer, solved to rounding: entropy (Sinkhorn) or a square (QP).

``max <C, Z> - eps R(Z)`` over the same plans. With duals u of the agents and v of the tasks the plan is an explicit
function of (C - v) row by row, so only v is sought. Each round of a state consists of

* a coordinate step: v that is exactly right for the present u (Sinkhorn's column update, generalized to places that
  may stay empty and to lower bounds), which always lowers the dual objective;
* a (semismooth) Newton step on the tasks whose bound binds, kept if it lowers the dual objective further. It is
  cut to a few eps, and to more or less than that as steps turn out right or wrong: further away the plan has changed
  too much for its derivative to say anything.

Eps starts at the spread of the scores and is divided by 4 whenever the loads are roughly right: v hardly changes
from one eps to the next. Each state has its own schedule and stops for itself, so that the answer does not depend on
the rest of the batch.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from components.errors import UserError
from modules.assignment.differentiators.base import TensorProblem
from modules.assignment.differentiators.laplacian import laplacian_times, solve_columns
from modules.assignment.differentiators.step_size import without_row_means

# A plan is done when the loads of all tasks together are wrong by no more than this many agents.
TOLERANCE = 1e-10
# The same, before the next smaller eps.
ROUGHLY = 0.01
MAX_ROUNDS = 300
# Largest change of a price in a Newton step, in units of eps, at first; and the factor when a step was right or wrong.
REACH = 4.0
TRUST = 2.0
# How often a Newton step is solved again because prices would change their sign.
SIGN_PASSES = 4
# Stands for "not allowed" where minus infinity would give NaN in differences.
FAR = -1e300


class Regularizer(Protocol):
    """R, through the two things that an iteration asks of it; ``epsilon`` is [B, 1]."""

    def rows(self, scores: Tensor, allowed: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each agent's best mixture for scores C - v.

        Returns:
            Z [B, N, M], weights w = eps dZ/dC at fixed duals [B, N, M], u [B, N], the dual objective by agent [B, N].
        """

    def columns(self, scores: Tensor, allowed: Tensor, low: Tensor, high: Tensor, epsilon: Tensor) -> Tensor:
        """[B, M] v for scores C - u such that the load of each task is within [low, high]; 0 where it is anyway."""


class Entropy:
    """R(Z) = sum z log z: softmax in the place of the maximum; every allowed pair gets a share."""

    def rows(self, scores: Tensor, allowed: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Softmax."""
        scaled = (scores / epsilon.unsqueeze(2)).masked_fill(~allowed, FAR)
        level = torch.where(allowed.any(2), scaled.logsumexp(2), 0.0)
        plan = torch.exp(scaled - level.unsqueeze(2)).masked_fill(~allowed, 0.0)
        u = epsilon * level
        return plan, plan, u, u

    def columns(self, scores: Tensor, allowed: Tensor, low: Tensor, high: Tensor, epsilon: Tensor) -> Tensor:
        """Sinkhorn's update, clipped to the bounds."""
        load = (scores / epsilon.unsqueeze(2)).masked_fill(~allowed, FAR).logsumexp(1)
        wanted = torch.minimum(torch.maximum(load, low.log()), high.log())
        return torch.where(allowed.any(1), epsilon * (load - wanted), 0.0)


class Square:
    """R(Z) = |Z|^2 / 2: sparsemax in the place of the maximum; bad pairs get exactly nothing."""

    def rows(self, scores: Tensor, allowed: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The projection of C / eps on the simplex."""
        masked = scores.masked_fill(~allowed, FAR)
        u = torch.where(allowed.any(2), _threshold(masked, epsilon.expand(masked.shape[:2]), 2), 0.0)
        share = (masked - u.unsqueeze(2)).clamp(min=0.0) / epsilon.unsqueeze(2)
        plan = share.masked_fill(~allowed, 0.0)
        value = (plan * scores).sum(2) - 0.5 * epsilon * plan.square().sum(2)
        return plan, (plan > 0.0).to(plan.dtype), u, value

    def columns(self, scores: Tensor, allowed: Tensor, low: Tensor, high: Tensor, epsilon: Tensor) -> Tensor:
        """The threshold that lets the right number of agents in."""
        masked = scores.masked_fill(~allowed, FAR)
        load = masked.clamp(min=0.0).sum(1) / epsilon
        wanted = torch.minimum(torch.maximum(load, low), high)
        moved = (load != wanted) & allowed.any(1)
        return torch.where(moved, _threshold(masked, epsilon * wanted, 1), 0.0)


def _threshold(values: Tensor, total: Tensor, dim: int) -> Tensor:
    """The t with sum max(0, values - t) = total along ``dim``, total positive (Held et al. 1974)."""
    ordered = values.sort(dim, descending=True).values
    shape = [1, 1, 1]
    shape[dim] = values.shape[dim]
    count = torch.arange(1, values.shape[dim] + 1, dtype=values.dtype, device=values.device).view(shape)
    candidates = (ordered.cumsum(dim) - total.unsqueeze(dim)) / count
    used = (ordered > candidates).sum(dim, keepdim=True).clamp(min=1)
    return candidates.gather(dim, used - 1).squeeze(dim)


@dataclass(frozen=True)
class SmoothPlan:
    """The regularized optimum and what its derivative needs.

    Attributes:
        z: [B, N, M].
        weights: w, [B, N, M]; dZ = (w / eps) (dC - du - dv).
        binding: [B, M] bool, tasks whose capacity or lower bound holds with equality.
        price: v, [B, M], the dual of capacity minus that of the lower bound.
    """

    z: Tensor
    weights: Tensor
    binding: Tensor
    price: Tensor


@dataclass(frozen=True)
class _States:
    """What does not change; everything [B, ...]."""

    scores: Tensor
    allowed: Tensor
    low: Tensor
    high: Tensor
    epsilon: Tensor

    def take(self, states: Tensor) -> _States:
        return _States(*(part[states] for part in vars(self).values()))


@dataclass(frozen=True)
class _Point:
    """A trial v with all that follows from it; everything [B, ...]."""

    v: Tensor
    epsilon: Tensor
    reach: Tensor
    plan: Tensor
    weights: Tensor
    u: Tensor
    dual: Tensor
    excess: Tensor
    error: Tensor

    def take(self, states: Tensor) -> _Point:
        return _Point(*(part[states] for part in vars(self).values()))

    def replaced(self, other: _Point, where: Tensor) -> _Point:
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Point(*(torch.where(where.view(-1, *[1] * (a.dim() - 1)), b, a) for a, b in parts))


def smooth_plan(problem: TensorProblem, regularizer: Regularizer, epsilon: Tensor) -> SmoothPlan:
    """Solves all states; ``epsilon`` is [B, 1, 1].

    Raises:
        UserError: the problem has extra linear constraints.
        RuntimeError: a state did not converge.
    """
    states = _states(problem, epsilon)
    plan, weights = torch.zeros_like(states.scores), torch.zeros_like(states.scores)
    price = torch.zeros_like(states.low)
    left = torch.arange(len(plan), device=plan.device)
    first = _first_epsilon(states)
    point = _at(states, regularizer, price, first, REACH * first)
    for _ in range(MAX_ROUNDS):
        point = _cooled(states, regularizer, point)
        done = (point.error <= TOLERANCE) & (point.epsilon == states.epsilon).squeeze(1)
        if done.any():
            finished = left[done]
            plan[finished], weights[finished], price[finished] = point.plan[done], point.weights[done], point.v[done]
            left, states, point = left[~done], states.take(~done), point.take(~done)
        if not len(left):
            return SmoothPlan(plan, weights, price != 0.0, price)
        point = _next(states, regularizer, point)
    raise RuntimeError(
        f"the smoothed assignment of {problem.host.name_of(int(left[0]))} did not converge in {MAX_ROUNDS} rounds "
        f"(loads wrong by {float(point.error[0]):.1e} agents): raise epsilon = {float(states.epsilon[0]):g}"
    )


def unrolled_sinkhorn(problem: TensorProblem, scores: Tensor, epsilon: Tensor, iterations: int) -> Tensor:
    """[B, N, M] the plan after so many Sinkhorn iterations from v = 0, differentiable in ``scores``.

    The rows are right, the loads only in the limit.

    Raises:
        UserError: the problem has extra linear constraints.
    """
    states, entropy = _states(problem, epsilon), Entropy()
    v, eps = torch.zeros_like(states.low), states.epsilon
    for _ in range(iterations):
        u = entropy.rows(scores - v.unsqueeze(1), states.allowed, eps)[2]
        v = entropy.columns(scores - u.unsqueeze(2), states.allowed, states.low, states.high, eps)
    return entropy.rows(scores - v.unsqueeze(1), states.allowed, eps)[0]


def _states(problem: TensorProblem, epsilon: Tensor) -> _States:
    if problem.constraints:
        names = ", ".join(repr(constraint.name) for constraint in problem.constraints)
        raise UserError(
            f"a smoothed assignment knows no extra constraints, but the problem has {names}: use a differentiator that "
            "only asks the LP, such as 'blackbox'"
        )
    living = problem.agent_mask.sum(1, keepdim=True).to(torch.float64)
    high = torch.minimum(torch.where(problem.task_mask, problem.capacity, 0.0), living)
    low = torch.zeros_like(high) if problem.lower is None else torch.where(problem.task_mask, problem.lower, 0.0)
    # Where every place must be filled the loads are equalities, and their duals may take any level.
    low = torch.where(high.sum(1, keepdim=True) <= living, high, low)
    allowed = problem.allowed & (high > 0.0).unsqueeze(1)
    # Constants per agent change nothing but the numbers' size.
    return _States(without_row_means(problem.scores, allowed), allowed, low, high, epsilon.squeeze(2))


def _first_epsilon(states: _States) -> Tensor:
    """[B, 1] epsilon times a power of 4, no less than the size of the scores."""
    size = states.scores.abs().amax((1, 2)).unsqueeze(1)
    steps = torch.log((size / states.epsilon).clamp(min=1.0)) / math.log(4.0)
    return states.epsilon * 4.0 ** steps.ceil()


def _cooled(states: _States, regularizer: Regularizer, point: _Point) -> _Point:
    """The next smaller eps for states whose loads are roughly right."""
    ready = (point.error <= ROUGHLY) & (point.epsilon > states.epsilon).squeeze(1)
    if not ready.any():
        return point
    smaller = torch.where(ready.unsqueeze(1), torch.maximum(point.epsilon / 4.0, states.epsilon), point.epsilon)
    # So that rounding leaves no last step in between.
    smaller = torch.where(smaller < 2.0 * states.epsilon, states.epsilon, smaller)
    return point.replaced(_at(states, regularizer, point.v, smaller, REACH * smaller), ready)


def _at(states: _States, regularizer: Regularizer, v: Tensor, epsilon: Tensor, reach: Tensor) -> _Point:
    plan, weights, u, value = regularizer.rows(states.scores - v.unsqueeze(1), states.allowed, epsilon)
    load = plan.sum(1)
    over, under = load - states.high, load - states.low
    # At v > 0 the load must be k, at v < 0 it must be l, at 0 anything between.
    excess = torch.where(v > 0.0, over, torch.where(v < 0.0, under, over.clamp(min=0.0) + under.clamp(max=0.0)))
    dual = value.sum(1) + (states.high * v.clamp(min=0.0) + states.low * v.clamp(max=0.0)).sum(1)
    return _Point(v, epsilon, reach, plan, weights, u, dual, excess, excess.abs().sum(1))


def _next(states: _States, regularizer: Regularizer, point: _Point) -> _Point:
    """One round: the coordinate step, and from there the Newton step if it helps."""
    v = regularizer.columns(
        states.scores - point.u.unsqueeze(2), states.allowed, states.low, states.high, point.epsilon
    )
    slow = _at(states, regularizer, v, point.epsilon, point.reach / TRUST)
    step = _newton_step(states, slow)
    short = torch.minimum(torch.maximum(step, -point.reach), point.reach)
    cut = (short != step).any(1, keepdim=True)
    fast = _at(states, regularizer, v + short, point.epsilon, torch.where(cut, TRUST * point.reach, point.reach))
    # Near the end the dual objectives are equal up to rounding, and the smaller error decides.
    slack = 1e-12 * (1.0 + slow.dual.abs())
    better = (fast.dual < slow.dual - slack) | ((fast.dual <= slow.dual + slack) & (fast.error < slow.error))
    return slow.replaced(fast, better)


def _newton_step(states: _States, point: _Point) -> Tensor:
    """[B, M] change of v that makes the loads of the binding tasks right to first order.

    A price may not change its sign: the one that would do so first stops at 0, and the others are solved for again
    with that in mind. Stopping all at once would undo the differences between prices that move together.
    """
    v, excess = point.v, point.excess
    free = (v != 0.0) | (excess != 0.0)
    # +1: the capacity binds, so v stays at 0 or more; -1: the lower bound; 0: both, any sign.
    side = torch.where((v > 0.0) | ((v == 0.0) & (excess > 0.0)), 1.0, -1.0)
    side = torch.where(states.low == states.high, 0.0, side)
    fixed = torch.zeros_like(v)
    step = point.epsilon * solve_columns(point.weights, excess, free)
    for _ in range(SIGN_PASSES):
        crossing = free & (side * (v + step) < 0.0)
        if not crossing.any():
            return step
        first = crossing & (_way_to_zero(v, step, crossing) <= _shortest(v, step, crossing))
        fixed, free = torch.where(first, -v, fixed), free & ~first
        right = excess - laplacian_times(point.weights, fixed) / point.epsilon
        step = fixed + point.epsilon * solve_columns(point.weights, right, free)
    crossing = free & (side * (v + step) < 0.0)
    share = _shortest(v, step, crossing).clamp(max=1.0)
    return torch.where(crossing & (_way_to_zero(v, step, crossing) <= share), -v, share * step)


def _way_to_zero(v: Tensor, step: Tensor, crossing: Tensor) -> Tensor:
    """[B, M] share of the step after which a price is 0; infinite for prices that do not get there."""
    return torch.where(crossing, v / torch.where(crossing, -step, 1.0), torch.inf)


def _shortest(v: Tensor, step: Tensor, crossing: Tensor) -> Tensor:
    """[B, 1] the same for the price that gets there first."""
    return _way_to_zero(v, step, crossing).amin(1, keepdim=True)
