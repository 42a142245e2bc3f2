"""The assignment LP as a differentiable function and as a network module.

Sign: the LP maximizes. An objective J to be raised has A = dJ/dZ, and a differentiator answers with D in the place of
dJ/dC. With a loss L = -J and g = dL/dZ this is A = -g and dL/dC = -D. Which D: see
:mod:`modules.assignment.differentiators`.

Shape legend: B states, N agents, M tasks; ``...`` is any leading shape, also none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from modules.assignment.constraints import LinearConstraint
from modules.assignment.differentiators.base import (
    Differentiator,
    Field,
    TensorProblem,
    make_differentiator,
    tensor_problem,
)
from modules.assignment.differentiators.step_size import relative_size
from modules.assignment.problem import AssignmentProblem

LAMBDA = 20.0
_SEEDS = 2**62


@dataclass(frozen=True)
class BlackboxStep:
    """One surrogate loss.

    Attributes:
        loss: scalar; minus its gradient with respect to the scores is D, averaged over states.
        changed: share of the states with a direction that is not 0; 0 means that nothing is learned.
    """

    loss: Tensor
    changed: float


class AssignmentFunction(torch.autograd.Function):
    """Forward Z(C), or a differentiator's soft plan; backward -D(-g). Call it through :class:`AssignmentLayer`."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, problem: TensorProblem, differentiator: Differentiator, seed: int | None
    ) -> Tensor:
        """Solves; the noise of both passes follows from ``seed``."""
        rng = _seeded(seed)
        ctx.start = differentiator.forward(problem, rng)
        ctx.call = problem, differentiator, rng.get_state() if rng is not None else None
        return problem.give_back(ctx.start.z, scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """A pure function of g: a second backward pass through the same graph sees the same noise."""
        problem, differentiator, state = ctx.call
        rng = None
        if state is not None:
            rng = torch.Generator()
            rng.set_state(state)
        found = differentiator.ascent(problem, ctx.start, -problem.take_in(gradient), rng)
        return problem.give_back(-found.direction, gradient), None, None, None


class AssignmentLayer(nn.Module):
    """The assignment LP inside a network: scores in, assignments out, gradients by a chosen differentiator.

    Example, the whole of it::

        import torch
        from modules.assignment import AssignmentLayer

        layer = AssignmentLayer()
        network = torch.nn.Linear(8, 3)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        agents, worth = torch.randn(32, 5, 8), torch.randn(32, 5, 3)  # 32 states, 5 agents, 3 tasks
        z = layer(network(agents), capacity=[2, 2, 2])
        loss = -(z * worth).sum()
        loss.backward()
        optimizer.step()

    Args:
        differentiator: name in ``DIFFERENTIATORS``; why this default: docs/decisions/017.
        solver: name in ``SOLVERS``; ``auto`` picks by problem and device.
        seed: of the noise, for differentiators that draw any. The state of the generator is part of ``state_dict``.
        options: of the differentiator, see its docstring and its options model.

    Raises:
        UserError: an unknown differentiator or option.
    """

    def __init__(self, differentiator: str = "imle", solver: str = "auto", seed: int = 0, **options: Any) -> None:
        super().__init__()
        self.name, self.solver, self.options = differentiator, solver, options
        self.differentiator = make_differentiator(differentiator, options)
        self.generator = torch.Generator().manual_seed(seed)

    @override
    def forward(
        self,
        scores: Tensor,
        capacity: Field,
        agent_mask: Field | None = None,
        task_mask: Field | None = None,
        pair_mask: Field | None = None,
        lower: Field | None = None,
        constraints: Sequence[LinearConstraint] = (),
        idle_price: float | None = None,
    ) -> Tensor:
        """Assigns agents to tasks.

        States of different sizes share a batch by padding and masks.

        Args:
            scores: C, [..., N, M], higher is better; what is dead or forbidden may hold anything and gets no gradient.
            capacity: [M] or [..., M], most agents of each task.
            agent_mask: [..., N] bool, living agents; dead ones get a row of zeros.
            task_mask: [..., M] bool, living tasks.
            pair_mask: [N, M] or [..., N, M] bool, allowed pairs.
            lower: [M] or [..., M], least number of agents of each living task.
            constraints: extra linear constraints; Z may then be fractional.
            idle_price: agents may stay without a task at the score ``-idle_price`` (a row of zeros).

        Returns:
            Z [..., N, M], of the type and on the device of ``scores``.

        Raises:
            ValueError: as :func:`make_problem`; in the backward pass also for a gradient that is not finite.
            InfeasibleAssignment: a state has no assignment; its message says why.
        """
        problem = tensor_problem(
            scores, capacity, agent_mask, task_mask, pair_mask, lower, constraints, idle_price, self.solver
        )
        return _apply(scores, problem, self.differentiator, self.generator)

    @override
    def extra_repr(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"{self.name!r}, solver={self.solver!r}{options}"

    @override
    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    @override
    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def assign(
    scores: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    lam: float = LAMBDA,
    tau: float | None = None,
    solver: str = "auto",
) -> Tensor:
    """The LP with the blackbox gradient as a function, Z = LP(C).

    The perturbation is lam * g with the gradient as it arrives: a loss that is a mean over B states shrinks g,
    and so the effective lambda, by B. Use a summed loss, ``tau``, or :func:`surrogate_loss`.

    Args:
        scores: C, [..., N, M].
        capacity: [M] or [..., M].
        agent_mask: [..., N] bool, living agents; dead ones get a row of zeros and no gradient.
        task_mask: [..., M] bool, living tasks.
        lam: absolute lambda, ignored when ``tau`` is given.
        tau: makes lambda relative, see :func:`relative_lambda`.
        solver: name in ``SOLVERS``.

    Returns:
        Z [..., N, M], of the type and on the device of ``scores``.

    Raises:
        ValueError: as :func:`make_problem`; in the backward pass also for a gradient that is not finite.
        InfeasibleAssignment: a state has no assignment.
        UserError: ``lam`` or ``tau`` not positive.
    """
    differentiator = make_differentiator("blackbox", {"lam": lam} if tau is None else {"tau": tau})
    problem = tensor_problem(scores, capacity, agent_mask, task_mask, solver=solver)
    return _apply(scores, problem, differentiator, None)


def surrogate_loss(
    scores: Tensor,
    advantage: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    *,
    pair_mask: Field | None = None,
    lower: Field | None = None,
    constraints: Sequence[LinearConstraint] = (),
    idle_price: float | None = None,
    solver: str = "auto",
    differentiator: Differentiator | str = "blackbox",
    generator: torch.Generator | None = None,
    **options: Any,
) -> BlackboxStep:
    """Loss whose gradient is -D for J = sum_ij z_ij A_ij, averaged over states, with A untouched by the mean.

    loss = -(1/B) sum_b sum_ij stop_gradient(D_ij) c_ij. At B = 1 its gradient equals that of
    ``-(layer(C) * A).sum()``; at larger B it is 1/B of it.

    Args:
        scores: C, [..., N, M].
        advantage: A = dJ/dZ, [..., N, M], higher is better; no gradient flows into it.
        capacity: [M] or [..., M].
        agent_mask: [..., N] bool, living agents.
        task_mask: [..., M] bool, living tasks.
        pair_mask: [N, M] or [..., N, M] bool, allowed pairs.
        lower: [M] or [..., M], least number of agents of each living task.
        constraints: extra linear constraints.
        idle_price: agents may stay without a task at this price.
        solver: name in ``SOLVERS``.
        differentiator: a name in ``DIFFERENTIATORS``, or a differentiator.
        generator: CPU generator, for differentiators that draw noise.
        options: of a differentiator given by its name; without any, ``blackbox`` takes lambda = 20.

    Raises:
        ValueError: as :func:`make_problem`; ``advantage`` is not finite; noise without a generator; options for a
            differentiator that is made already.
        InfeasibleAssignment: a state has no assignment.
        UserError: an unknown differentiator or option.
    """
    method = _made(differentiator, options)
    problem = tensor_problem(scores, capacity, agent_mask, task_mask, pair_mask, lower, constraints, idle_price, solver)
    if scores.numel() == 0:
        return BlackboxStep(-scores.sum(), 0.0)
    start = method.forward(problem, generator)
    found = method.ascent(problem, start, problem.take_in(advantage), generator)
    weight = problem.give_back(found.direction, scores)
    # Scores that carry no weight may be anything, also infinite: 0 times that would not be 0.
    total = (weight * scores.masked_fill(weight == 0, 0.0)).sum()
    return BlackboxStep(-total / len(found.changed), float(found.changed.double().mean()))


def relative_lambda(problem: AssignmentProblem, direction: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """[B] lambda per state: tau * (max - min of C) / max|A|, both over allowed pairs.

    See :func:`modules.assignment.differentiators.step_size.relative_size`.

    Args:
        problem: holds C and the masks.
        direction: A, [B, N, M].
        tau: relative size, for example 0.5.
    """
    tensors = tensor_problem(
        torch.from_numpy(problem.scores), problem.capacity, problem.agent_mask, problem.task_mask, problem.pair_mask
    )
    found: NDArray[np.float64] = relative_size(tensors, tensors.take_in(torch.from_numpy(direction)), tau).numpy()
    return found.reshape(-1)


def _made(differentiator: Differentiator | str, options: dict[str, Any]) -> Differentiator:
    if isinstance(differentiator, str):
        return make_differentiator(differentiator, options or _plain_options(differentiator))
    if options:
        raise ValueError(f"options {sorted(options)} belong to a differentiator given by its name, not to a made one")
    return differentiator


def _plain_options(name: str) -> dict[str, Any]:
    # Here the mean over states leaves A as it is, so an absolute lambda means what it says.
    return {"lam": LAMBDA} if name == "blackbox" else {}


def _apply(
    scores: Tensor, problem: TensorProblem, differentiator: Differentiator, generator: torch.Generator | None
) -> Tensor:
    if scores.numel() == 0:
        return scores.clone()
    seed = None
    if differentiator.stochastic and generator is not None:
        seed = int(torch.randint(_SEEDS, (), generator=generator))
    z: Tensor = AssignmentFunction.apply(scores, problem, differentiator, seed)
    return z


def _seeded(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)
