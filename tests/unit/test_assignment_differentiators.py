"""Each differentiator against the derivative of what it claims to differentiate, and what all of them promise.

Sign: ``ascent`` returns D, along which J = sum z A should rise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from components.errors import UserError
from modules.assignment import DIFFERENTIATORS, AssignmentLayer, budget, make_problem, solve, surrogate_loss
from modules.assignment.differentiators import base, make_differentiator, tensor_problem
from modules.assignment.differentiators.noise import draw_noise
from modules.assignment.losses import fenchel_young_loss, spo_plus_loss

ALL = sorted(DIFFERENTIATORS)
NOISY = [name for name in ALL if make_differentiator(name).stochastic]
CALM = [name for name in ALL if name not in NOISY]
SMOOTHED = ["sinkhorn", "qp"]

Direction = Callable[..., Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def ascent_of(
    name: str, scores: Tensor, advantage: Tensor, capacity: Any, *masks: Any, seed: int = 0, **options: Any
) -> Tensor:
    """D, from the public entry: minus the gradient of the surrogate loss, times the number of states."""
    leaf = scores.detach().clone().requires_grad_()
    made = make_differentiator(name, options)
    step = surrogate_loss(leaf, advantage, capacity, *masks, differentiator=made, generator=seeded(seed))
    return -torch.autograd.grad(step.loss, leaf)[0] * max(len(scores), 1)


def slope(function: Callable[[Tensor], Tensor], scores: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of [B] values with respect to scores [B, N, M]."""
    gradient = torch.zeros_like(scores)
    for i in range(scores.shape[1]):
        for j in range(scores.shape[2]):
            move = torch.zeros_like(scores)
            move[:, i, j] = step
            gradient[:, i, j] = (function(scores + move) - function(scores - move)) / (2 * step)
    return gradient


def best_value(scores: Tensor, capacity: Any) -> Tensor:
    """[..., B] F(C) = max_Z <C, Z>."""
    flat = scores.reshape(-1, *scores.shape[-2:])
    return torch.from_numpy(solve(make_problem(flat.numpy(), capacity)).value).reshape(scores.shape[:-2])


CAPACITY = [1, 1, 2]


def test_blackbox_is_the_gradient_of_its_interpolation() -> None:
    scores, advantage = normal(20, 3, 3), normal(20, 3, 3, seed=1)
    expected = slope(lambda c: (best_value(c + 0.7 * advantage, CAPACITY) - best_value(c, CAPACITY)) / 0.7, scores)
    assert (expected.abs() > 0.1).any()
    torch.testing.assert_close(ascent_of("blackbox", scores, advantage, CAPACITY, lam=0.7), expected, atol=1e-8, rtol=0)


def test_two_sided_blackbox_is_the_gradient_of_its_interpolation() -> None:
    scores, advantage = normal(20, 3, 3), normal(20, 3, 3, seed=1)

    def interpolation(c: Tensor) -> Tensor:
        return (best_value(c + 0.7 * advantage, CAPACITY) - best_value(c - 0.7 * advantage, CAPACITY)) / 1.4

    expected = slope(interpolation, scores)
    assert (expected.abs() > 0.1).any()
    found = ascent_of("blackbox_two_sided", scores, advantage, CAPACITY, lam=0.7)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("noise", ["gaussian", "gumbel", "sum_of_gamma"])
@pytest.mark.parametrize("forward", ["exact", "mean"])
def test_imle_is_the_gradient_of_its_interpolation_given_the_noise(noise: Any, forward: str) -> None:
    scores, advantage = normal(10, 3, 3), normal(10, 3, 3, seed=1)
    xi = 0.4 * draw_noise(noise, 5, tensor_problem(scores, CAPACITY), seeded(7))

    def interpolation(c: Tensor) -> Tensor:
        better = best_value(c + xi + 0.7 * advantage, CAPACITY)
        return ((better - best_value(c + xi, CAPACITY)) / 0.7).mean(0)

    options = {"lam": 0.7, "sigma": 0.4, "samples": 5, "noise": noise, "forward": forward}
    found = ascent_of("imle", scores, advantage, CAPACITY, seed=7, **options)
    torch.testing.assert_close(found, slope(interpolation, scores), atol=1e-8, rtol=0)


def test_sums_of_gamma_noise_are_gumbel() -> None:
    problem = tensor_problem(torch.zeros(1, 4, 2, dtype=torch.float64), [2, 2])
    noise = draw_noise("sum_of_gamma", 40_000, problem, seeded())
    total = noise[:, 0, :, 0].sum(1)
    # A Gumbel variable has the mean 0.577 and the variance pi^2 / 6; ten terms leave out 0.095 of the variance.
    assert float(total.mean()) == pytest.approx(0.5772 + 0.05, abs=0.04)
    assert float(total.var()) == pytest.approx(1.645, rel=0.1)


def one_must_leave(scores: Tensor, advantage: Tensor, sigma: float) -> Tensor:
    """E J(Z(C + sigma xi)) for 3 agents, 2 tasks, capacities (2, 1), Gaussian noise, by one-dimensional integrals.

    Exactly one agent takes task 1: the one whose difference c_i0 - c_i1 is the smallest.
    """
    width = sigma * 2**0.5
    mean = scores[:, 0] - scores[:, 1]
    x = torch.linspace(-12.0, 12.0, 8001, dtype=torch.float64)
    z = (x.unsqueeze(1) - mean) / width
    density = torch.exp(-0.5 * z**2) / (width * (2 * torch.pi) ** 0.5)
    above = 0.5 * torch.erfc(z / 2**0.5)
    leaves = torch.stack(
        [torch.trapezoid(density[:, i] * above[:, [k for k in range(3) if k != i]].prod(1), x) for i in range(3)]
    )
    gain = advantage[:, 1] - advantage[:, 0]
    return (leaves * gain).sum() + advantage[:, 0].sum()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("perturbed", {"samples": 4000, "forward": "mean"}),
        ("perturbed", {"samples": 4000, "forward": "exact"}),
        ("score_function", {"pairs": 2000}),
    ],
)
def test_noisy_gradients_are_unbiased(name: str, options: dict[str, Any]) -> None:
    scores, advantage = 0.3 * normal(3, 2), normal(3, 2, seed=1)
    leaf = scores.clone().requires_grad_()
    expected = torch.autograd.grad(one_must_leave(leaf, advantage, 0.5), leaf)[0]
    found = ascent_of(name, scores.expand(60, 3, 2), advantage.expand(60, 3, 2), [2, 1], sigma=0.5, **options)
    error = found.std(0) / 60**0.5
    assert (error < 0.005).all()
    assert expected.abs().max() > 0.1
    assert ((found.mean(0) - expected).abs() < 4.5 * error).all()


def test_the_perturbed_forward_pass_is_the_mean_assignment() -> None:
    """With room for everybody and Gumbel noise the mean assignment is a softmax, and so is its derivative."""
    scores, advantage = normal(1, 2, 3), normal(1, 2, 3, seed=1)
    layer = AssignmentLayer("perturbed", samples=100_000, noise="gumbel", sigma=0.5)
    leaf = scores.clone().requires_grad_()
    z = layer(leaf, [2, 2, 2])
    soft = torch.softmax(leaf / 0.5, 2)
    torch.testing.assert_close(z, soft, atol=0.008, rtol=0)
    found = torch.autograd.grad((z * advantage).sum(), leaf)[0]
    expected = torch.autograd.grad((soft * advantage).sum(), leaf)[0]
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_the_score_function_takes_any_objective() -> None:
    """J counts agents at task 0 squared: no linear function of Z."""
    scores = normal(1, 2, 2).expand(60, 2, 2).contiguous()
    problem = tensor_problem(scores, [2, 2])
    method: Any = make_differentiator("score_function", {"pairs": 2000, "sigma": 0.5})
    found = method.estimate(problem, lambda z: z[..., 0].sum(-1) ** 2, seeded())
    leaf = scores[0].clone().requires_grad_()
    p = 0.5 * torch.erfc(-(leaf[:, 0] - leaf[:, 1]) / (0.5 * 2**0.5) / 2**0.5)
    expected = torch.autograd.grad(p.sum() + 2 * p.prod(), leaf)[0]
    error = found.std(0) / 60**0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * error).all()


def test_identity_takes_out_what_changes_no_assignment() -> None:
    scores, advantage = normal(5, 3, 3), normal(5, 3, 3, seed=1)
    rows = advantage - advantage.mean(2, keepdim=True)
    both = rows - rows.mean(1, keepdim=True)
    for capacity, project, expected in [
        ([1, 1, 1], "invariant", both),
        ([1, 1, 2], "invariant", rows),
        ([1, 1, 2], "rows_and_columns", both),
        ([1, 1, 1], "rows", rows),
        ([1, 1, 1], "nothing", advantage),
    ]:
        torch.testing.assert_close(ascent_of("identity", scores, advantage, capacity, project=project), expected)


def test_fenchel_young_is_the_gradient_of_its_loss() -> None:
    scores, advantage = normal(10, 3, 3), normal(10, 3, 3, seed=1)
    target = torch.from_numpy(solve(make_problem(advantage.numpy(), CAPACITY)).index)

    def loss(c: Tensor) -> Tensor:
        return fenchel_young_loss(c, target, CAPACITY, generator=seeded(7), samples=5, sigma=0.4)

    expected = slope(loss, scores)
    leaf = scores.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(loss(leaf).sum(), leaf)[0], expected, atol=1e-8, rtol=0)
    found = ascent_of("fenchel_young", scores, advantage, CAPACITY, seed=7, samples=5, sigma=0.4)
    size = (advantage.amax(2) - advantage.amin(2)).amax(1).view(-1, 1, 1)
    torch.testing.assert_close(found, -size * expected, atol=1e-7, rtol=0)


def test_spo_plus_is_the_gradient_of_its_loss() -> None:
    scores, advantage = normal(10, 3, 3), normal(10, 3, 3, seed=1)
    expected = slope(lambda c: spo_plus_loss(c, advantage, CAPACITY), scores)
    leaf = scores.clone().requires_grad_()
    value = spo_plus_loss(leaf, advantage, CAPACITY).sum()
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], expected, atol=1e-8, rtol=0)
    found = ascent_of("spo_plus", scores, advantage, CAPACITY, lam=1.0)
    torch.testing.assert_close(found, -expected, atol=1e-8, rtol=0)


HARD_CASES: list[dict[str, Any]] = [
    {"capacity": [1, 1, 2]},
    {"capacity": [1, 1, 1], "agent_mask": [[1, 1, 0, 1]]},
    {"capacity": [4, 4, 4]},
    {"capacity": [1.5, 2.2, 1.1]},
    {"capacity": [4, 4, 4], "lower": [2, 1, 0]},
    {"capacity": [2, 2, 1], "pair_mask": [[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]]},
    {"capacity": [2, 3, 9], "task_mask": [[1, 1, 0]]},
]


@pytest.mark.parametrize("case", HARD_CASES, ids=str)
@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothed_plans_have_exact_derivatives(name: str, case: dict[str, Any]) -> None:
    """Finite differences of the soft plan itself, in float64."""
    fields = {key: np.asarray(value) for key, value in case.items()}
    layer = AssignmentLayer(name, forward="soft", epsilon=2.0)
    for seed in range(4):
        scores = normal(1, 4, 3, seed=seed)
        plan = layer(scores, **fields)
        assert ((plan > 1e-3) & (plan < 0.999)).any(), "the plan is not soft enough to test anything"
        assert torch.autograd.gradcheck(lambda c: layer(c, **fields), (scores.requires_grad_(),), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", HARD_CASES, ids=str)
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothed_plans_are_optimal(name: str, epsilon: float, case: dict[str, Any]) -> None:
    """Feasible, and along no exchange of a pair of agents or into free room does the objective rise."""
    fields = {key: np.asarray(value) for key, value in case.items()}
    scores = normal(1, 4, 3, seed=5)
    problem = make_problem(scores.numpy(), **fields)
    plan = AssignmentLayer(name, forward="soft", epsilon=epsilon)(scores, **fields)[0].numpy()
    load, high = plan.sum(0), np.where(problem.task_mask[0], problem.capacity[0], 0.0)
    low = np.zeros(3) if problem.lower is None else problem.lower[0]
    np.testing.assert_allclose(plan.sum(1), problem.agent_mask[0], atol=1e-9)
    assert (plan >= 0).all()
    assert (plan[~problem.allowed()[0]] == 0).all()
    assert ((load <= high + 1e-9) & (load >= low - 1e-9)).all()

    def objective(z: np.ndarray) -> float:
        penalty = 0.5 * (z**2).sum() if name == "qp" else (z * np.log(np.maximum(z, 1e-300))).sum()
        return float((scores[0].numpy() * z).sum() - epsilon * penalty)

    allowed = problem.allowed()[0].ravel()
    rows, columns = np.repeat(np.eye(4), 3, 1)[:, allowed], np.tile(np.eye(3), 4)[:, allowed]

    def minus(x: np.ndarray) -> float:
        z = np.zeros(12)
        z[allowed] = x
        return -objective(z.reshape(4, 3))

    found = minimize(
        minus,
        plan.ravel()[allowed],
        bounds=[(0, 1)] * int(allowed.sum()),
        constraints=[
            {"type": "eq", "fun": lambda x: (rows @ x - problem.agent_mask[0])[problem.agent_mask[0]]},
            {"type": "ineq", "fun": lambda x: (high - columns @ x)[np.isfinite(high)]},
            {"type": "ineq", "fun": lambda x: columns @ x - low},
        ],
        options={"ftol": 1e-12},
    )
    assert -found.fun <= objective(plan) + 1e-6


def test_sinkhorn_with_room_for_everybody_is_a_softmax() -> None:
    scores = normal(6, 4, 3)
    plan = AssignmentLayer("sinkhorn", forward="soft", epsilon=0.3)(scores, [4, 4, 4])
    torch.testing.assert_close(plan, torch.softmax(scores / 0.3, 2))


def test_unrolled_sinkhorn_tends_to_the_implicit_gradient() -> None:
    scores, advantage = normal(6, 4, 3), normal(6, 4, 3, seed=1)
    exact = ascent_of("sinkhorn", scores, advantage, CAPACITY, epsilon=0.5)
    errors = [
        (ascent_of("sinkhorn", scores, advantage, CAPACITY, epsilon=0.5, backward="unrolled", iterations=n) - exact)
        for n in (3, 300)
    ]
    assert errors[0].abs().max() > 1e-3
    assert errors[1].abs().max() < 1e-6


def test_smoothed_plans_converge_on_hard_problems() -> None:
    """Scores of very different sizes, fractional places, forbidden pairs: each state stops for itself."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(150, 6, 5)) * 10.0 ** rng.integers(-2, 3, (150, 1, 1))
    capacity = rng.integers(1, 4, (150, 5)) + rng.random((150, 5)) * rng.integers(0, 2, (150, 1))
    capacity[:, 0] += 3
    pairs = rng.random((150, 6, 5)) < 0.8
    pairs[:, :, 0] = True
    for name in SMOOTHED:
        for epsilon in (1.0, 0.05):
            layer = AssignmentLayer(name, forward="soft", epsilon=epsilon)
            plan = layer(torch.from_numpy(scores), capacity, pair_mask=pairs)
            np.testing.assert_allclose(plan.sum(2), 1.0, atol=1e-9)
            assert (plan.sum(1).numpy() <= capacity + 1e-9).all()


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothed_plans_refuse_extra_constraints(name: str) -> None:
    with pytest.raises(UserError, match="knows no extra constraints, but the problem has 'budget'"):
        surrogate_loss(
            normal(1, 2, 2),
            normal(1, 2, 2),
            [2, 2],
            constraints=[budget(np.ones((2, 2)), 2)],
            differentiator=name,
        )


CAPACITY_5 = [1, 1, 3]
# Among the states where Z is not best under A, with default options: least share in which <D, A> > 0, least share in
# which a long step along D reaches a better assignment, largest share in which it reaches a worse one. One-sided
# perturbations are 0 where the wrong margin is larger; the others smooth, and so average over good and bad neighbors.
PROMISES = {
    "blackbox": (0.85, 0.85, 0.0),
    "blackbox_two_sided": (1.0, 0.85, 0.02),
    "fenchel_young": (1.0, 1.0, 0.0),
    "identity": (1.0, 1.0, 0.0),
    "imle": (1.0, 1.0, 0.0),
    "perturbed": (0.97, 0.8, 0.08),
    "qp": (1.0, 0.9, 0.05),
    "score_function": (0.95, 0.75, 0.12),
    "sinkhorn": (1.0, 0.7, 0.08),
    "spo_plus": (1.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", ALL)
def test_a_step_raises_the_objective(name: str) -> None:
    scores, advantage = normal(500, 5, 3), normal(500, 5, 3, seed=1)
    layer = AssignmentLayer()
    before = (layer(scores, CAPACITY_5) * advantage).sum((1, 2))
    wrong = before < best_value(advantage, CAPACITY_5) - 1e-9
    d = ascent_of(name, scores, advantage, CAPACITY_5)
    after = (layer(scores + 1e6 * d, CAPACITY_5) * advantage).sum((1, 2))
    up = ((d * advantage).sum((1, 2)) > 0)[wrong].double().mean()
    better, worse = ((difference > 1e-9)[wrong].double().mean() for difference in (after - before, before - after))
    least_up, least_better, most_worse = PROMISES[name]
    assert up >= least_up
    assert better >= least_better
    assert worse <= most_worse


def test_with_a_large_lambda_blackbox_is_never_stuck() -> None:
    scores, advantage = normal(500, 5, 3), normal(500, 5, 3, seed=1)
    layer = AssignmentLayer()
    wrong = (layer(scores, CAPACITY_5) * advantage).sum((1, 2)) < best_value(advantage, CAPACITY_5) - 1e-9
    d = ascent_of("blackbox", scores, advantage, CAPACITY_5, lam=1e4)
    after = (layer(scores + 1e9 * d, CAPACITY_5) * advantage).sum((1, 2))
    torch.testing.assert_close(after[wrong], best_value(advantage, CAPACITY_5)[wrong])
    assert (d[~wrong] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_no_advantage_gives_exactly_no_gradient(name: str) -> None:
    advantage = normal(6, 5, 3, seed=1)
    advantage[::2] = 0.0
    d = ascent_of(name, normal(6, 5, 3), advantage, CAPACITY_5)
    assert (d[::2] == 0).all()
    assert (d[1::2] != 0).flatten(1).any(1).all()


def masks() -> tuple[Tensor, Tensor, Tensor]:
    """Living agents and tasks, and the pairs that are out, of 40 states; in the last two nobody or nothing lives."""
    rng = np.random.default_rng(3)
    agents, tasks = rng.random((40, 4)) < 0.8, rng.random((40, 3)) < 0.8
    agents[-2], tasks[-1] = False, False
    out = ~(agents[:, :, None] & tasks[:, None, :])
    return torch.from_numpy(agents), torch.from_numpy(tasks), torch.from_numpy(out)


@pytest.mark.parametrize("name", ALL)
def test_what_is_out_gets_no_gradient_and_may_hold_anything(name: str) -> None:
    agents, tasks, out = masks()
    scores = normal(40, 4, 3).masked_fill(out, float("nan"))
    advantage = normal(40, 4, 3, seed=1).masked_fill(out, float("inf"))
    d = ascent_of(name, scores, advantage, [4, 4, 4], agents, tasks)
    assert (d[out] == 0).all()
    assert torch.isfinite(d).all()
    assert (d[~out] != 0).any()
    layer = AssignmentLayer(name)
    leaf = scores.clone().requires_grad_()
    z = layer(leaf, [4, 4, 4], agents, tasks)
    assert (z[out] == 0).all()
    (z * advantage.nan_to_num(posinf=0.0)).sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[out] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_forbidden_pairs_get_no_gradient(name: str) -> None:
    allowed = torch.ones(4, 3, dtype=torch.bool)
    allowed[0, 0] = allowed[1, 1] = False
    made = make_differentiator(name)
    leaf = normal(30, 4, 3).masked_fill(~allowed, torch.inf).requires_grad_()
    advantage = normal(30, 4, 3, seed=1).masked_fill(~allowed, torch.nan)
    step = surrogate_loss(
        leaf, advantage, [2, 2, 2], pair_mask=allowed, lower=[1, 0, 1], differentiator=made, generator=seeded()
    )
    gradient = torch.autograd.grad(step.loss, leaf)[0]
    assert (gradient[:, ~allowed] == 0).all()
    assert (gradient[:, allowed] != 0).any()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ALL)
def test_constants_per_agent_change_nothing(name: str) -> None:
    """Neither in the scores nor in the advantage; the gradient itself has no part that is constant per agent."""
    scores, advantage, constant = normal(30, 5, 3), normal(30, 5, 3, seed=1), 5.0 * normal(30, 5, 1, seed=2)
    plain = ascent_of(name, scores, advantage, CAPACITY_5)
    torch.testing.assert_close(ascent_of(name, scores + constant, advantage, CAPACITY_5), plain, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(ascent_of(name, scores, advantage + constant, CAPACITY_5), plain, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(plain.sum(2), torch.zeros(30, 5, dtype=plain.dtype), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_prefer_means_no_gradient(name: str) -> None:
    """An advantage that is constant per agent prefers no assignment."""
    constant = normal(6, 5, 1, seed=2).expand(6, 5, 3)
    d = ascent_of(name, normal(6, 5, 3), constant, CAPACITY_5)
    torch.testing.assert_close(d, torch.zeros_like(d), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_a_relative_step_does_not_depend_on_any_scale(name: str) -> None:
    """Default options: an advantage 64 times smaller gives a gradient 64 times smaller, larger scores the same plan."""
    scores, advantage = normal(30, 5, 3), normal(30, 5, 3, seed=1)
    plain = ascent_of(name, scores, advantage, CAPACITY_5)
    torch.testing.assert_close(ascent_of(name, scores, advantage / 64, CAPACITY_5), plain / 64)
    larger = ascent_of(name, scores * 8, advantage, CAPACITY_5)
    factor = 1.0 if name in ("identity", "fenchel_young") else 8.0
    torch.testing.assert_close(larger * factor, plain)


@pytest.mark.parametrize("name", CALM)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    scores, advantage, order = normal(30, 5, 3), normal(30, 5, 3, seed=1), torch.randperm(30, generator=seeded())
    plain = ascent_of(name, scores, advantage, CAPACITY_5)
    torch.testing.assert_close(ascent_of(name, scores[order], advantage[order], CAPACITY_5), plain[order])
    torch.testing.assert_close(ascent_of(name, scores[3:4], advantage[3:4], CAPACITY_5), plain[3:4])


@pytest.mark.parametrize("name", ALL)
def test_a_state_does_not_see_its_neighbors(name: str) -> None:
    scores, advantage = normal(8, 5, 3), normal(8, 5, 3, seed=1)
    others, other_advantage = 9.0 * normal(8, 5, 3, seed=4), normal(8, 5, 3, seed=5)
    others[3], other_advantage[3] = scores[3], advantage[3]
    plain = ascent_of(name, scores, advantage, CAPACITY_5)
    torch.testing.assert_close(ascent_of(name, others, other_advantage, CAPACITY_5)[3], plain[3])


@pytest.mark.parametrize("name", ALL)
def test_single_precision_gives_the_same_gradient(name: str) -> None:
    scores, advantage = normal(30, 5, 3).float(), normal(30, 5, 3, seed=1).float()
    single, double = (ascent_of(name, s, a, CAPACITY_5) for s, a in ((scores, advantage), (scores.double(), advantage)))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, double.float())
    leaf = scores.clone().requires_grad_()
    z = AssignmentLayer(name)(leaf, CAPACITY_5)
    assert z.dtype == torch.float32
    (z * advantage).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ALL)
def test_the_layer_and_the_surrogate_loss_agree(name: str) -> None:
    """The layer's gradient is -D(-g) of the same state; noise comes from the layer's generator."""
    scores, advantage = normal(1, 4, 3), normal(1, 4, 3, seed=1)
    layer, leaf = AssignmentLayer(name, seed=5), scores.clone().requires_grad_()
    through = torch.autograd.grad(-(layer(leaf, CAPACITY) * advantage).sum(), leaf)[0]
    seed = int(torch.randint(2**62, (), generator=seeded(5))) if name in NOISY else 0
    torch.testing.assert_close(-through, ascent_of(name, scores, advantage, CAPACITY, seed=seed))


@pytest.mark.parametrize("solver", ["lsa", "glop", "torch"])
@pytest.mark.parametrize("name", ["blackbox", "imle", "spo_plus"])
def test_every_solver_gives_the_same_gradient(name: str, solver: str) -> None:
    scores, advantage = normal(8, 4, 3), normal(8, 4, 3, seed=1)
    leaf = scores.clone().requires_grad_()
    layers = [AssignmentLayer(name, solver=solver), AssignmentLayer(name, solver="kernel")]
    gradients = [torch.autograd.grad((layer(leaf, CAPACITY) * advantage).sum(), leaf)[0] for layer in layers]
    assert (gradients[0] != 0).any()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("name", "options", "forward", "backward"),
    [
        ("blackbox", {}, 1, 1),
        ("blackbox_two_sided", {}, 1, 2),
        ("imle", {"samples": 4}, 1, 8),
        ("imle", {"samples": 4, "forward": "mean"}, 4, 4),
        ("perturbed", {"samples": 6}, 6, 0),
        ("perturbed", {"samples": 6, "forward": "exact"}, 1, 6),
        ("score_function", {"pairs": 3}, 1, 6),
        ("sinkhorn", {}, 1, 0),
        ("sinkhorn", {"forward": "soft"}, 0, 0),
        ("identity", {}, 1, 0),
        ("fenchel_young", {"samples": 4}, 1, 5),
        ("spo_plus", {}, 1, 2),
        ("qp", {}, 1, 0),
    ],
)
def test_number_of_solves(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], forward: int, backward: int
) -> None:
    solved: list[int] = []

    def counted(problem: Any, solver: str) -> Any:
        solved.append(len(problem.scores))
        return solve(problem, solver)

    monkeypatch.setattr(base, "solve", counted)
    leaf = normal(10, 4, 2).requires_grad_()
    z = AssignmentLayer(name, **options)(leaf, [2, 3])
    assert sum(solved) == 10 * forward
    solved.clear()
    z.square().sum().backward()
    assert sum(solved) == 10 * backward


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty_sizes(name: str, shape: tuple[int, int, int]) -> None:
    leaf = torch.zeros(shape, requires_grad=True)
    z = AssignmentLayer(name)(leaf, torch.full((shape[2],), 3))
    assert z.shape == shape
    z.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.shape == shape


@pytest.mark.parametrize("name", ALL)
def test_tied_scores_have_a_gradient_without_surprises(name: str) -> None:
    d = ascent_of(name, torch.zeros(3, 4, 3), normal(3, 4, 3, seed=1), CAPACITY)
    assert torch.isfinite(d).all()


def test_losses_are_convex_bounds_with_their_least_value_where_they_should() -> None:
    scores, true = normal(40, 5, 3), normal(40, 5, 3, seed=1)
    best = solve(make_problem(true.numpy(), CAPACITY_5))
    target = torch.from_numpy(best.index)
    reached = (AssignmentLayer()(scores, CAPACITY_5) * true).sum((1, 2))
    regret = torch.from_numpy(best.value) - reached
    loss = spo_plus_loss(scores, true, CAPACITY_5)
    assert (loss >= regret - 1e-12).all()
    torch.testing.assert_close(spo_plus_loss(scores, true, CAPACITY_5, target=target), loss)
    torch.testing.assert_close(spo_plus_loss(true, true, CAPACITY_5), torch.zeros(40, dtype=true.dtype))
    middle = 0.5 * (scores + true)
    assert (spo_plus_loss(middle, true, CAPACITY_5) <= 0.5 * loss + 1e-12).all()

    def imitation(c: Tensor) -> Tensor:
        return fenchel_young_loss(c, target, CAPACITY_5, generator=seeded())

    assert (imitation(scores) >= 0).all()
    assert (imitation(middle) <= 0.5 * (imitation(scores) + imitation(true)) + 1e-12).all()
    assert (imitation(100.0 * true) < imitation(scores)).double().mean() > 0.9
    one_hot = torch.from_numpy(best.z)
    torch.testing.assert_close(
        fenchel_young_loss(scores, one_hot, CAPACITY_5, generator=seeded()), imitation(scores), rtol=0, atol=0
    )


def test_losses_learn_an_observed_assignment() -> None:
    target = torch.from_numpy(solve(make_problem(normal(50, 5, 3, seed=1).numpy(), CAPACITY_5)).index)
    scores = normal(50, 5, 3).requires_grad_()
    optimizer, generator = torch.optim.Adam([scores], lr=0.1), seeded()
    for _ in range(150):
        optimizer.zero_grad()
        fenchel_young_loss(scores, target, CAPACITY_5, generator=generator).mean().backward()
        optimizer.step()
    found = torch.from_numpy(solve(make_problem(scores.detach().numpy(), CAPACITY_5)).index)
    assert (found == target).double().mean() > 0.99


def test_losses_ignore_what_is_out_and_keep_the_leading_shape() -> None:
    agents, tasks, out = masks()
    scores = normal(40, 4, 3).masked_fill(out, torch.nan).requires_grad_()
    true = normal(40, 4, 3, seed=1).masked_fill(out, torch.inf)
    loss = spo_plus_loss(scores, true, [4, 4, 4], agents, tasks)
    gradient = torch.autograd.grad(loss.sum(), scores)[0]
    assert torch.isfinite(loss).all()
    assert (gradient[out] == 0).all()
    assert (gradient[~out] != 0).any()
    shape = spo_plus_loss(normal(2, 3, 4, 3), normal(2, 3, 4, 3, seed=1), [2, 2, 2]).shape
    assert shape == (2, 3)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([[0, 5]]), "gives agent 1 the shares"),
        (torch.tensor([[0, -1]]), "gives agent 1 the shares"),
        (torch.tensor([[0.0, 1.0]]), "task numbers must be integers"),
        (torch.tensor([[0]]), "the target must have the shape"),
        (torch.tensor([[[1.0, 0.0], [0.7, 0.0]]]), "gives agent 1 the shares"),
    ],
)
def test_targets_are_checked(target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fenchel_young_loss(normal(1, 2, 2), target, [2, 2], generator=seeded())
