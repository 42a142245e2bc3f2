"""Exact batch solver in plain torch: tensors of one device in and out, all states in lockstep.

Successive shortest paths over the tasks, as in the kernel, but with one search from all over-full tasks at once, and
with Bellman-Ford instead of Dijkstra: a relaxation of all labels is a few batched operations. Every agent starts at
its best task. A round relaxes the labels ``RELAXATIONS`` times; in states in which the nearest task with room is then
certain, one agent moves along each edge of the path to it and the prices of the tasks that are nearer rise. Other
states go on with their search in the next round, and finished ones leave the batch. Lower bounds come second: the
same search from all tasks that can spare an agent to the tasks that lack one, where prices fall.

There is no loop over states, agents or tasks, nothing leaves the device, and a round waits for the device once. All
that happens to a state follows from its own numbers, by operations whose result does not depend on their order: its
answer is the same in every batch.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.assignment.feasibility import explain
from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, require_integral

# Relaxations between two waits for the device; most paths have one edge, and the second relaxation confirms it.
RELAXATIONS = 2
# The working memory is cut down to the unfinished states when their share falls below this.
CUT_BELOW = 0.8
INFINITY = float("inf")


class NoAssignment(ValueError):
    """A state has no assignment, as :func:`solve_tensors` found while it solved the batch.

    Attributes:
        state: its number.
    """

    def __init__(self, state: int, states: int) -> None:
        super().__init__(
            f"state {state} of {states} has no assignment: there are too few places, or too few agents for the lower "
            "bounds, given who is alive and may go where (modules.assignment.check_feasible tells more)"
        )
        self.state = state


@dataclass
class _Work:
    """States in the making, one row each.

    Attributes:
        state: [B] number of the state.
        scores: [B, M, N] c with agents last, -inf for pairs that are not allowed.
        living: [B, N] agents to assign.
        limit: [B, M] in the first phase the capacity, in the second the lower bound.
        load: [B, M] agents at each task.
        index: [B, N] each agent's task.
        price: [B, M].
        distance: [B, M] length of the shortest path found so far from a source, infinite if there is none.
        mover: [B, M] agent that moves to the task on that path, -1 for sources and tasks out of reach.
        worth: [B, N] an agent's score less price where it is, infinite for agents that are out: they never move.
    """

    state: Tensor
    scores: Tensor
    living: Tensor
    limit: Tensor
    load: Tensor
    index: Tensor
    price: Tensor
    distance: Tensor
    mover: Tensor
    worth: Tensor

    def cut(self, rows: Tensor) -> _Work:
        """A copy of some rows."""
        return _Work(*(getattr(self, field.name)[rows] for field in fields(self)))

    def put(self, part: _Work) -> None:
        """Writes the results of a part back."""
        for name in ("index", "price", "load"):
            getattr(self, name)[part.state] = getattr(part, name)


@torch.no_grad()
def solve_tensors(
    scores: Tensor,
    capacity: Tensor,
    agent_mask: Tensor,
    task_mask: Tensor,
    pair_mask: Tensor | None = None,
    lower: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Solves ``max sum c_ij z_ij, sum_j z_ij = 1, l_j <= sum_i z_ij <= k_j, z >= 0`` for each state of a batch.

    Exact up to the rounding of sums of scores in their own type. No gradient flows: that is what
    :class:`modules.assignment.layer.AssignmentLayer` is for.

    Args:
        scores: c, [B, N, M] float32 or float64; finite for living agents, living tasks and allowed pairs.
        capacity: k, [B, M] whole numbers of any type, not negative; may be infinite.
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
        pair_mask: [B, N, M] bool, allowed pairs; None: all.
        lower: l, [B, M] whole numbers, not negative, ignored for dead tasks; None: 0.

    Returns:
        index: [B, N] int64, each agent's task, the lowest number on ties where there is room; -1 for dead agents and
            where no task lives.
        price: [B, M] in the type of the scores, optimal dual prices: the least ones where there are no lower bounds;
            any with them, negative only for tasks that have one. 0 for dead tasks.

    Raises:
        ValueError: shapes that do not fit, scores of another type, a score of an allowed pair that is not finite, a
            capacity or lower bound that is negative or not a whole number.
        NoAssignment: a state has no assignment.
    """
    _check_shapes(scores, capacity, agent_mask, task_mask, pair_mask, lower)
    b, n, m = scores.shape
    if b * n * m == 0:
        if lower is not None and bool(((lower > 0) & task_mask).any()):
            raise NoAssignment(int(((lower > 0) & task_mask).any(1).to(torch.int8).argmax()), b)
        index = torch.full((b, n), -1, dtype=torch.int64, device=scores.device)
        return index, torch.zeros((b, m), dtype=scores.dtype, device=scores.device)
    living = agent_mask & task_mask.any(1, keepdim=True)
    allowed = living.unsqueeze(2) & task_mask.unsqueeze(1)
    allowed = allowed if pair_mask is None else allowed & pair_mask
    _check_numbers(scores, allowed, capacity, lower)

    places = _whole_numbers(capacity, task_mask, n)
    work = _seat_at_best(scores.masked_fill(~allowed, -INFINITY).transpose(1, 2).contiguous(), living, places)
    stuck = (living & ~allowed.any(2)).any(1)
    stuck |= _augment(work, fill=False)
    if lower is not None:
        work.limit = _whole_numbers(lower, task_mask, n + 1)
        stuck |= (work.limit > places).any(1) | _augment(work, fill=True)
        # A path that passes by may have lowered a price that no lower bound holds down.
        work.price = torch.where(work.limit == 0, work.price.clamp(min=0.0), work.price)
    if stuck.any():
        raise NoAssignment(int(stuck.to(torch.int8).argmax()), b)
    return work.index.masked_fill(~living, -1), work.price.masked_fill(~task_mask, 0.0)


def solve_torch(problem: AssignmentProblem) -> Assignment:
    """The solver behind the common interface, on the CPU and in float64.

    Raises:
        UserError: a capacity or lower bound is fractional, or there are extra constraints.
        InfeasibleAssignment: a state has no assignment.
    """
    require_integral(problem, "torch")
    try:
        index, price = solve_tensors(
            _tensor(problem.scores),
            _tensor(problem.capacity),
            _tensor(problem.agent_mask),
            _tensor(problem.task_mask),
            None if problem.pair_mask is None else _tensor(problem.pair_mask),
            None if problem.lower is None else _tensor(problem.lower),
        )
    except NoAssignment as error:
        raise explain(problem, error.state) or error from None
    return Assignment(problem, index.numpy(), price.numpy(), solver="torch")


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch warns about arrays that may not be written to, though nothing is written here.
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def _whole_numbers(counts: Tensor, task_mask: Tensor, most: int) -> Tensor:
    """[B, M] int64, at most ``most``, 0 for dead tasks."""
    return counts.clamp(max=most).masked_fill(~task_mask, 0).to(torch.int64)


def _seat_at_best(scores: Tensor, living: Tensor, places: Tensor) -> _Work:
    """Everyone at its best task, prices 0; scores are [B, M, N]."""
    b, m, _ = scores.shape
    index = scores.max(1).indices
    return _Work(
        state=torch.arange(b, device=scores.device),
        scores=scores,
        living=living,
        limit=places,
        load=torch.zeros_like(places).scatter_add_(1, index, living.to(torch.int64)),
        index=index,
        price=scores.new_zeros((b, m)),
        distance=scores.new_full((b, m), INFINITY),
        mover=torch.full_like(places, -1),
        worth=scores.new_full(living.shape, INFINITY),
    )


def _augment(whole: _Work, fill: bool) -> Tensor:
    """Moves agents along shortest paths until no task exceeds its limit, or with ``fill`` none stays below it.

    Returns:
        [B] states in which that cannot be.
    """
    stuck = torch.zeros_like(whole.state, dtype=torch.bool)
    work = whole
    _start_searches(work, torch.ones_like(stuck), fill)
    while True:
        for _ in range(RELAXATIONS):
            changed = _relax(work)
        nearest, target = torch.where(work.load < work.limit, work.distance, INFINITY).min(1)
        # No label can still fall below those that the last relaxation changed.
        certain = torch.where(changed, work.distance, INFINITY).amin(1) >= nearest
        found = certain & (nearest < INFINITY)
        misplaced = (work.limit - work.load if fill else work.load - work.limit).clamp(min=0).sum(1)
        lost = certain & ~found & (misplaced > 0)
        stuck[work.state] = lost
        going_on = (misplaced - found.to(torch.int64) > 0) & ~lost

        _shift(work, found, target)
        _move_prices(work, found, nearest, fill)
        left = int(going_on.sum())  # the one wait for the device
        if left < CUT_BELOW * len(work.state):
            if work is not whole:
                whole.put(work)
            if left == 0:
                return stuck
            rows = torch.argsort(~going_on, stable=True)[:left]
            work, found = work.cut(rows), found[rows]
        _start_searches(work, found, fill)


def _start_searches(work: _Work, where: Tensor, fill: bool) -> None:
    """New labels for some states [B].

    An agent that leaves a task with a price gives up a place that is worth as much: with ``fill`` the search starts
    at that distance from the tasks that can spare one.
    """
    sources = work.load > work.limit
    start = work.price.clamp(min=0.0) if fill else torch.zeros_like(work.price)
    where = where.unsqueeze(1)
    work.distance = torch.where(where, torch.where(sources, start, INFINITY), work.distance)
    work.mover = work.mover.masked_fill(where, -1)
    here = work.scores.gather(1, work.index.unsqueeze(1)).squeeze(1) - work.price.gather(1, work.index)
    work.worth = here.masked_fill(~work.living, INFINITY)


def _relax(work: _Work) -> Tensor:
    """One step of Bellman-Ford over all pairs; [B, M] labels that fell.

    An edge costs what the agent loses, not less than 0: labels never fall below that of the task before, and paths
    have no cycles, whatever the rounding.
    """
    before = work.distance.gather(1, work.index)
    reach, agent = ((before + work.worth).unsqueeze(1) - work.scores).min(2)
    length = torch.maximum(reach + work.price, before.gather(1, agent))
    shorter = length < work.distance
    work.distance = torch.where(shorter, length, work.distance)
    work.mover = torch.where(shorter, agent, work.mover)
    return shorter


def _shift(work: _Work, found: Tensor, target: Tensor) -> None:
    """Moves one agent along each edge of the path that ends at ``target`` [B], in the states [B] where it is found.

    The path is marked by doubling: after s steps its last 2^s tasks are, and ``ahead`` jumps back 2^s tasks.
    """
    target = target.unsqueeze(1)
    tasks = torch.arange(work.mover.shape[1], device=target.device).expand_as(work.mover)
    mover = work.mover.clamp(min=0)
    ahead = torch.where(work.mover < 0, tasks, work.index.gather(1, mover))
    path = torch.zeros_like(work.mover).scatter_(1, target, found.to(torch.int64).unsqueeze(1))
    for _ in range((work.mover.shape[1] - 1).bit_length()):
        path = path.scatter_add(1, ahead, path).clamp(max=1)
        ahead = ahead.gather(1, ahead)
    one = found.to(torch.int64).unsqueeze(1)
    work.load = work.load.scatter_add(1, target, one).scatter_add(1, ahead.gather(1, target), -one)
    moves = (path > 0) & (work.mover >= 0)
    # Column N collects what does not move, so that no two writes meet elsewhere.
    index = torch.cat([work.index, work.index[:, :1]], 1)
    work.index = index.scatter(1, mover.masked_fill(~moves, work.index.shape[1]), tasks)[:, :-1].contiguous()


def _move_prices(work: _Work, found: Tensor, nearest: Tensor, fill: bool) -> None:
    """Keeps prices optimal for the new loads: tasks nearer than the target rise, or with ``fill`` all others fall."""
    length = nearest.unsqueeze(1)
    within = torch.minimum(work.distance, length)
    moved = work.price - within if fill else work.price + (length - within)
    work.price = torch.where(found.unsqueeze(1), moved, work.price)


def _check_shapes(
    scores: Tensor,
    capacity: Tensor,
    agent_mask: Tensor,
    task_mask: Tensor,
    pair_mask: Tensor | None,
    lower: Tensor | None,
) -> None:
    if scores.dim() != 3 or scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "scores must be float32 or float64 of the shape [states, agents, tasks], not "
            f"{scores.dtype} of the shape {tuple(scores.shape)}"
        )
    b, n, m = scores.shape
    wanted = {
        "capacity": (capacity, (b, m)),
        "agent_mask": (agent_mask, (b, n)),
        "task_mask": (task_mask, (b, m)),
        "pair_mask": (pair_mask, (b, n, m)),
        "lower": (lower, (b, m)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {tuple(tensor.shape)}")
        if tensor is not None and name.endswith("mask") and tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool, not {tensor.dtype}")


def _check_numbers(scores: Tensor, allowed: Tensor, capacity: Tensor, lower: Tensor | None) -> None:
    """One wait for the device; what is wrong is looked up only if something is."""
    checks = {"score of an allowed pair": (~torch.isfinite(scores) & allowed, scores, "finite")}
    wrong = ~(capacity >= 0) | (capacity != torch.round(capacity))
    checks["capacity"] = wrong, capacity, "a whole number, 0 or more"
    if lower is not None:
        wrong = ~(lower >= 0) | (lower != torch.round(lower)) | torch.isinf(lower)
        checks["lower bound"] = wrong, lower, "a whole number, 0 or more"
    if not torch.stack([wrong.any() for wrong, _, _ in checks.values()]).any():
        return
    for what, (wrong, values, wanted) in checks.items():
        if wrong.any():
            b, *rest = wrong.nonzero()[0].tolist()
            raise ValueError(f"state {b}: the {what} at {rest} is {values[b][tuple(rest)].item()}; it must be {wanted}")
