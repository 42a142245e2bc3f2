"""What all differentiators share: the problem as tensors, a plan, a direction of ascent, and their registry.

Sign convention, once for all: the LP maximizes, J is an objective to be raised, A = dJ/dZ, and a differentiator
returns D in the place of dJ/dC: C should move along +D. With a loss L = -J and g = dL/dZ this is A = -g and
dL/dC = -D. All arithmetic is in float64 whatever the type of the scores: a near-tie must not hang on rounding.

Shape legend: B states, N agents, M tasks, S noisy copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from torch import Tensor

from components.errors import UserError
from components.registry import NoOptions, Options, Registry, did_you_mean
from modules.assignment.capacity_rules import with_idle
from modules.assignment.constraints import LinearConstraint
from modules.assignment.feasibility import check_places
from modules.assignment.problem import AssignmentProblem, make_problem
from modules.assignment.solution import general_states, require_integral
from modules.assignment.solvers import solve

Field = Tensor | ArrayLike

DIFFERENTIATORS = Registry("differentiator")


@dataclass(frozen=True)
class TensorProblem:
    """A checked batch of assignment problems as tensors of one device; build it with :func:`tensor_problem`.

    Attributes:
        scores: C, [B, N, M] float64; 0 for pairs that are not allowed. With an idle task, that is the last of the M.
        capacity: k, [B, M] float64.
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
        pair_mask: [B, N, M] bool, allowed pairs; None allows all.
        lower: l, [B, M] float64, least number of agents; None asks for none.
        constraints: extra linear constraints.
        solver: the back end, a name in ``SOLVERS``.
        host: the same problem for NumPy back ends; its scores mean nothing when the device is not the CPU.
    """

    scores: Tensor
    capacity: Tensor
    agent_mask: Tensor
    task_mask: Tensor
    pair_mask: Tensor | None
    lower: Tensor | None
    constraints: tuple[LinearConstraint, ...]
    solver: str
    host: AssignmentProblem

    @cached_property
    def allowed(self) -> Tensor:
        """[B, N, M] bool: living agent, living task, allowed pair."""
        living = self.agent_mask.unsqueeze(2) & self.task_mask.unsqueeze(1)
        return living if self.pair_mask is None else living & self.pair_mask

    def solve(self, scores: Tensor) -> Tensor:
        """[..., B, N] int64: each agent's column at other scores [..., B, N, M], -1 for agents that are out.

        Raises:
            ValueError: the score of an allowed pair is not finite.
        """
        return self._solved(scores)[0]

    def plan(self, scores: Tensor) -> Tensor:
        """[..., B, N, M] float64: Z at other scores; 0/1 unless the LP's vertices are fractional.

        Raises:
            ValueError: the score of an allowed pair is not finite.
        """
        index, shares = self._solved(scores)
        return self.z(index) if shares is None else shares

    def z(self, index: Tensor) -> Tensor:
        """[..., B, N] columns -> [..., B, N, M] float64; a row of zeros for -1."""
        tasks = torch.arange(self.scores.shape[2], device=index.device)
        return (index.unsqueeze(-1) == tasks).to(torch.float64)

    def take_in(self, values: Tensor) -> Tensor:
        """The user's values [..., N, M] in the form of C: [B, N, M] float64, 0 for pairs that are not allowed."""
        b, n, m = self.scores.shape
        flat = values.detach().to(self.scores.device, torch.float64).reshape(b, n, m - self.host.idle)
        if self.host.idle:
            flat = torch.nn.functional.pad(flat, (0, 1))
        return flat.masked_fill(~self.allowed, 0.0)

    def give_back(self, values: Tensor, like: Tensor) -> Tensor:
        """Values [B, N, M] in the user's shape, type and device; always a copy, without the idle column."""
        kept = values[:, :, :-1] if self.host.idle else values
        return kept.to(like.device, like.dtype, copy=True).reshape(like.shape)

    def _solved(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Columns and, for fractional vertices, shares; leading copies of the batch are solved in one call."""
        self._check_finite(scores)
        copies = 1 if scores.dim() == 3 else len(scores)
        flat = scores.reshape(copies * len(self.scores), *scores.shape[-2:])
        if self.solver == "torch":
            return self._solved_on_device(flat, copies).reshape(scores.shape[:-1]), None
        many = self.host if copies == 1 else self.host.take(np.tile(np.arange(len(self.scores)), copies))
        answer = solve(many.with_scores(flat.cpu().numpy()), self.solver)
        index = torch.from_numpy(answer.column).to(scores.device).reshape(scores.shape[:-1])
        if answer.shares is None:
            return index, None
        return index, torch.from_numpy(answer.shares).to(scores.device).reshape(scores.shape)

    def _solved_on_device(self, scores: Tensor, copies: int) -> Tensor:
        from modules.assignment.torch_solver import solve_tensors

        def many(field: Tensor) -> Tensor:
            return field.repeat(copies, *[1] * (field.dim() - 1))

        index: Tensor = solve_tensors(
            scores,
            many(self.capacity),
            many(self.agent_mask),
            many(self.task_mask),
            None if self.pair_mask is None else many(self.pair_mask),
            None if self.lower is None else many(self.lower),
        )[0]
        return index

    def _check_finite(self, scores: Tensor) -> None:
        if torch.isfinite(scores.sum()):  # quicker than asking each; an overflow of the sum is looked into
            return
        bad = ~torch.isfinite(scores) & self.allowed
        if bad.any():
            *_, b, i, j = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{self.host.name_of(b)}: the perturbed score of agent {i} for task {j} is {scores[bad][0].item()}; "
                "gradients and advantages of living agents and tasks must be finite, their sum with the scores too"
            )


def tensor_problem(
    scores: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    pair_mask: Field | None = None,
    lower: Field | None = None,
    constraints: Sequence[LinearConstraint] = (),
    idle_price: float | None = None,
    solver: str = "auto",
) -> TensorProblem:
    """Checks a batch of problems and brings it to tensors on the device of ``scores``.

    The scores are copied: a change in place after the call does not reach the backward pass. On the CPU the NumPy
    back ends read the tensors where they are; on other devices ``auto`` stays there with the solver ``torch``
    where that one can solve the problem, and only capacities and masks are copied to be checked.

    Args:
        scores: C, [..., N, M] of any float type.
        capacity: [M] or [..., M].
        agent_mask: [..., N] bool, living agents; all of them by default.
        task_mask: [..., M] bool, living tasks; all of them by default.
        pair_mask: [N, M] or [..., N, M] bool, allowed pairs; all of them by default.
        lower: [M] or [..., M], least number of agents of a task.
        constraints: extra linear constraints.
        idle_price: agents may stay without a task at this price; None: they may not.
        solver: name in ``SOLVERS``.

    Raises:
        ValueError: as :func:`make_problem`.
        InfeasibleAssignment: a state has no feasible assignment (told by the first solve).
        UserError: an unknown solver, or one that cannot solve this problem.
    """
    values = scores.detach().to(torch.float64, copy=True)
    at_host = values.device.type == "cpu"
    host = make_problem(
        values.numpy() if at_host else np.zeros(values.shape),
        as_numpy(capacity),
        _mask(agent_mask),
        _mask(task_mask),
        _mask(pair_mask),
        lower=None if lower is None else as_numpy(lower),
        constraints=tuple(constraints),
    )
    if idle_price is not None:
        host = with_idle(host, idle_price)
    name = _solver_for(host, solver, at_host)

    def tensor(array: NDArray[Any]) -> Tensor:
        # PyTorch warns of arrays that it may not write to, such as broadcast ones.
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(values.device)

    flat = tensor(host.scores)
    if not at_host:
        flat[:, :, : values.shape[-1]] = values.reshape(len(flat), *values.shape[-2:])
    problem = TensorProblem(
        flat,
        tensor(host.capacity),
        tensor(host.agent_mask),
        tensor(host.task_mask),
        None if host.pair_mask is None else tensor(host.pair_mask),
        None if host.lower is None else tensor(host.lower),
        host.constraints,
        name,
        host,
    )
    flat.masked_fill_(~problem.allowed, 0.0)
    return problem


def _solver_for(host: AssignmentProblem, solver: str, at_host: bool) -> str:
    """The back end of all solves: away from the CPU, ``torch`` for ``auto`` where it can."""
    stays = solver == "torch" or (solver == "auto" and not at_host and not general_states(host).any())
    if not stays:
        return solver
    require_integral(host, "torch")
    check_places(host)  # not repeated: other scores change nothing about it
    return "torch"


def _mask(mask: Field | None) -> NDArray[np.bool_] | None:
    return None if mask is None else as_numpy(mask, np.bool_)


def as_numpy(values: Field, dtype: Any = np.float64) -> NDArray[Any]:
    """A tensor of any device, or anything like an array, as a NumPy array without a copy where possible."""
    return np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype)


@dataclass(frozen=True)
class Plan:
    """The answer of a forward pass.

    Attributes:
        z: Z, [B, N, M] float64.
        memory: what the differentiator wants to find again in the backward pass.
    """

    z: Tensor
    memory: Any = None


@dataclass(frozen=True)
class Ascent:
    """The answer of a backward pass.

    Attributes:
        direction: D in the place of dJ/dC, [B, N, M] float64; 0 for pairs that are not allowed.
        changed: [B] bool, states with a direction that is not 0; where there is none, nothing is learned.
    """

    direction: Tensor
    changed: Tensor


def ascent(direction: Tensor) -> Ascent:
    """The direction and where it is not 0."""
    return Ascent(direction, (direction != 0.0).flatten(1).any(1))


class Differentiator(ABC):
    """A way to differentiate through the assignment LP.

    Attributes:
        stochastic: it draws noise and so needs a generator.
    """

    stochastic: ClassVar[bool] = False

    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        """The exact LP, unless a differentiator says otherwise.

        Args:
            problem: what to solve.
            rng: CPU generator of the noise.
        """
        return Plan(problem.plan(problem.scores))

    @abstractmethod
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        """D for a given A.

        Args:
            problem: as in the forward pass.
            start: what the forward pass returned.
            direction: A = dJ/dZ, [B, N, M] float64, 0 for pairs that are not allowed. A = 0 gives D = 0 exactly.
            rng: CPU generator of the noise.
        """


def generator_of(differentiator: Differentiator, rng: torch.Generator | None) -> torch.Generator:
    """The generator, for differentiators that draw noise.

    Raises:
        ValueError: none was given.
    """
    if rng is None:
        name = type(differentiator).__name__
        raise ValueError(f"{name} draws noise: give it a generator, for example torch.Generator().manual_seed(0)")
    return rng


def make_differentiator(name: str, options: Mapping[str, Any] | None = None) -> Differentiator:
    """A differentiator by its name in ``DIFFERENTIATORS``.

    Args:
        name: for example ``"blackbox"``.
        options: its options; defaults for what is missing.

    Raises:
        UserError: unknown name or option, or a value that does not fit.
    """
    model: type[Options] = DIFFERENTIATORS.options(name)
    try:
        checked = model(**(options or {}))
    except ValidationError as error:
        faults = "; ".join(_fault(model, fault) for fault in error.errors())
        raise UserError(f"differentiator {name!r}: {faults}") from error
    if model is NoOptions:
        made: Differentiator = DIFFERENTIATORS[name]()
    else:
        made = DIFFERENTIATORS[name](checked)
    return made


def _fault(model: type[Options], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "options"
    if fault["type"] == "extra_forbidden":
        return f"unknown option {key!r}{did_you_mean(key, list(model.model_fields))}"
    return f"{key} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"
