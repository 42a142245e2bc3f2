import copy
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from components.errors import UserError
from modules.assignment import (
    AssignmentLayer,
    InfeasibleAssignment,
    assign,
    budget,
    make_differentiator,
    make_problem,
    relative_lambda,
    solve,
    surrogate_loss,
)

LAM = 20.0


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


def surrogate_gradient(scores: Tensor, advantage: Tensor, *fields: Any, **options: Any) -> Tensor:
    return torch.autograd.grad(surrogate_loss(scores, advantage, *fields, **options).loss, scores)[0]


def assign_gradient(scores: Tensor, advantage: Tensor, *fields: Any, **options: Any) -> Tensor:
    """Gradient of L = -J, J = sum z A, through the autograd function."""
    return torch.autograd.grad(-(assign(scores, *fields, **options) * advantage).sum(), scores)[0]


@pytest.mark.parametrize("gradient", [surrogate_gradient, assign_gradient])
def test_two_by_two_by_hand(gradient: Any) -> None:
    scores = torch.eye(2)[None].requires_grad_()
    advantage = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    ascent = -gradient(scores, advantage, [1, 1], lam=LAM)
    assert ascent.tolist() == [[pytest.approx([-0.05, 0.05]), pytest.approx([0.05, -0.05])]]


def test_forward_is_the_lp_in_the_type_of_the_scores() -> None:
    scores = leaf(6, 5, 3).float()
    z = assign(scores, torch.tensor([1, 1, 3]))
    assert z.dtype == torch.float32
    np.testing.assert_array_equal(z.detach(), solve(make_problem(scores.detach(), [1, 1, 3])).z)


def test_tiny_lambda_gives_nothing_huge_lambda_gives_the_best_for_the_advantage() -> None:
    scores, advantage = leaf(8, 5, 3), leaf(8, 5, 3, seed=1).detach()
    tiny = surrogate_loss(scores, advantage, [1, 1, 3], lam=1e-6)
    assert tiny.changed == 0.0
    assert (torch.autograd.grad(tiny.loss, scores)[0] == 0).all()
    huge = surrogate_gradient(scores, advantage, [1, 1, 3], lam=1e6)
    z = assign(scores, [1, 1, 3]).detach()
    best = torch.as_tensor(solve(make_problem(advantage, [1, 1, 3])).z)
    torch.testing.assert_close(huge, (z - best) / 1e6 / 8)


def test_constants_per_agent_change_nothing() -> None:
    scores, advantage = leaf(8, 5, 3), leaf(8, 5, 3, seed=1).detach()
    plain = surrogate_gradient(scores, advantage, [2, 2, 2], lam=1.0)
    constant = leaf(8, 5, 1, seed=2).detach()
    assert (plain != 0).any()
    torch.testing.assert_close(plain.sum(2), torch.zeros(8, 5, dtype=plain.dtype))
    torch.testing.assert_close(surrogate_gradient(scores, advantage + constant, [2, 2, 2], lam=1.0), plain)
    moved = (scores + constant).detach().requires_grad_()
    torch.testing.assert_close(surrogate_gradient(moved, advantage, [2, 2, 2], lam=1.0), plain)


def test_function_and_surrogate_agree_at_batch_one() -> None:
    for seed in range(20):
        scores, advantage = leaf(1, 5, 3, seed=seed), leaf(1, 5, 3, seed=100 + seed).detach()
        torch.testing.assert_close(
            assign_gradient(scores, advantage, [1, 1, 3], lam=0.5),
            surrogate_gradient(scores, advantage, [1, 1, 3], lam=0.5),
        )


def test_batch_of_eight_differs_by_the_documented_factor() -> None:
    scores, advantage = leaf(8, 5, 3), leaf(8, 5, 3, seed=1).detach()
    fields = torch.tensor([1, 1, 3])
    summed = assign_gradient(scores, advantage, fields, lam=0.5)
    averaged = surrogate_gradient(scores, advantage, fields, lam=0.5)
    torch.testing.assert_close(averaged, summed / 8)
    # A mean loss shrinks the incoming gradient, which acts as a lambda eight times smaller.
    mean = assign_gradient(scores, advantage / 8, fields, lam=0.5)
    shrunk = assign_gradient(scores, advantage, fields, lam=0.5 / 8)
    torch.testing.assert_close(mean, shrunk / 8)
    assert (mean != averaged).any()


def test_relative_lambda_does_not_depend_on_the_scale_of_the_loss() -> None:
    scores, advantage = leaf(8, 5, 3), leaf(8, 5, 3, seed=1).detach()
    full = assign_gradient(scores, advantage, [1, 1, 3], tau=0.5)
    assert (full != 0).any()
    torch.testing.assert_close(assign_gradient(scores, advantage / 64, [1, 1, 3], tau=0.5), full / 64)
    torch.testing.assert_close(surrogate_gradient(scores, advantage, [1, 1, 3], tau=0.5), full / 8)


def test_relative_lambda_over_living_pairs() -> None:
    scores = np.array([[[0.0, 4.0], [90.0, 90.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [1.0, 1.0]]])
    problem = make_problem(scores, [2, 2], agent_mask=[[1, 0], [1, 1], [0, 0]])
    direction = np.array([[[1.0, -2.0], [50.0, 0.0]], [[0.25, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert relative_lambda(problem, direction, 0.5).tolist() == [pytest.approx(2 / 3), 2.0, 1.0]
    assert relative_lambda(problem, np.zeros((3, 2, 2)), 0.5).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("options", [{"lam": LAM}, {"tau": 0.5}])
def test_no_advantage_gives_exactly_no_gradient(options: dict[str, Any]) -> None:
    scores = leaf(8, 5, 3)
    for gradient in (surrogate_gradient, assign_gradient):
        assert (gradient(scores, torch.zeros(8, 5, 3), [1, 1, 3], **options) == 0).all()


@pytest.mark.parametrize("options", [{"lam": LAM}, {"tau": 5.0}])
def test_what_is_dead_gets_no_gradient_and_may_hold_anything(options: dict[str, Any]) -> None:
    agents = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    tasks = torch.tensor([[1, 0, 1], [1, 1, 1]], dtype=torch.bool)
    out = ~(agents[:, :, None] & tasks[:, None, :])
    scores = leaf(2, 4, 3).detach().masked_fill(out, float("nan")).requires_grad_()
    advantage = leaf(2, 4, 3, seed=1).detach().masked_fill(out, float("inf"))
    step = surrogate_loss(scores, advantage, [2, 2, 2], agents, tasks, **options)
    assert torch.isfinite(step.loss)
    assert step.changed == 0.5
    gradient = torch.autograd.grad(step.loss, scores)[0]
    assert (gradient[out] == 0).all()
    assert (gradient[~out] != 0).any()
    z = assign(scores, [2, 2, 2], agents, tasks, **options)
    through = torch.autograd.grad(z.sum(2), scores, leaf(2, 4, seed=1).detach())[0]
    assert (z[out] == 0).all()
    assert (through[out] == 0).all()


def test_one_step_raises_the_objective() -> None:
    """Sign: where Z is not yet best, a large enough step along the gradient reaches a better assignment."""
    scores, advantage = leaf(64, 5, 3), leaf(64, 5, 3, seed=1).detach()
    before = (assign(scores, [1, 1, 3]) * advantage).sum((1, 2))
    gradient = assign_gradient(scores, advantage, [1, 1, 3], lam=LAM)
    after = (assign(scores - 1e3 * gradient, [1, 1, 3]) * advantage).sum((1, 2))
    assert (after >= before - 1e-12).all()
    assert (after > before).double().mean() > 0.8


def train_free_scores(sign: float, starts: int = 60) -> float:
    """Share of the starts in which the scores themselves, trained with Adam, end at the optimum of a fixed Q.

    The best assignment under this Q leads the second best by 0.6, far more than spread(C) / lambda can hide.
    """
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 5, 3, generator=generator).expand(starts, 5, 3)
    scores = torch.randn(starts, 5, 3, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.05)
    for _ in range(200):
        z = assign(scores.detach(), [1, 1, 3])
        advantage = q - (z * q).sum(2, keepdim=True)
        advantage = advantage / advantage.std().clamp_min(0.05)
        loss = sign * surrogate_loss(scores, sign * advantage, [1, 1, 3], lam=LAM).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reached = (assign(scores.detach(), [1, 1, 3]) * q).sum((1, 2))
    best = float(solve(make_problem(q, [1, 1, 3])).value[0])
    return float((reached > best - 1e-5).double().mean())


def test_free_scores_reach_the_optimum_with_the_papers_sign_only() -> None:
    assert train_free_scores(1.0) >= 0.95
    assert train_free_scores(-1.0) <= 0.20


def test_changed_counts_states() -> None:
    scores = torch.eye(2).repeat(4, 1, 1).requires_grad_()
    advantage = torch.zeros(4, 2, 2)
    advantage[0] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert surrogate_loss(scores, advantage, [1, 1]).changed == 0.25


def test_backward_sees_the_scores_of_the_forward_pass() -> None:
    scores = leaf(4, 5, 3).detach()
    parameter = scores.clone().requires_grad_()
    advantage = leaf(4, 5, 3, seed=1).detach()
    z = assign(parameter, [1, 1, 3], lam=0.5)
    with torch.no_grad():
        parameter.zero_()
    (-(z * advantage).sum()).backward()
    expected = assign_gradient(scores.requires_grad_(), advantage, [1, 1, 3], lam=0.5)
    torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("solver", ["kernel", "lsa", "glop"])
def test_every_solver_gives_the_same_gradient(solver: str) -> None:
    scores, advantage = leaf(8, 5, 3), leaf(8, 5, 3, seed=1).detach()
    expected = surrogate_gradient(scores, advantage, [1, 1, 3], lam=0.5)
    torch.testing.assert_close(surrogate_gradient(scores, advantage, [1, 1, 3], lam=0.5, solver=solver), expected)


def test_fractional_capacities_have_a_gradient() -> None:
    scores, advantage = leaf(8, 3, 3), leaf(8, 3, 3, seed=1).detach()
    gradient = assign_gradient(scores, advantage, [1.2, 1.2, 1.2], lam=LAM)
    torch.testing.assert_close(gradient.sum(2), torch.zeros(8, 3, dtype=gradient.dtype), atol=1e-9, rtol=0)
    assert (gradient.abs() > 1e-3).any()


def test_no_states() -> None:
    step = surrogate_loss(torch.zeros(0, 3, 2, requires_grad=True), torch.zeros(0, 3, 2), [2, 2])
    assert (step.loss.item(), step.changed) == (0.0, 0.0)


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"lam": -1.0}, {"lam": float("nan")}, {"tau": 0.0}])
def test_step_sizes_must_be_positive(options: dict[str, Any]) -> None:
    for call in (surrogate_gradient, assign_gradient):
        with pytest.raises(UserError, match=r"differentiator 'blackbox': (lam|tau) = "):
            call(leaf(1, 2, 2), torch.zeros(1, 2, 2), [1, 1], **options)


def test_errors_of_the_problem_reach_the_user() -> None:
    with pytest.raises(InfeasibleAssignment, match="sum k = 1"):
        assign(leaf(1, 2, 1), [1])
    with pytest.raises(ValueError, match="state 0: the perturbed score of agent 1 for task 0 is nan"):
        surrogate_loss(leaf(1, 2, 1), torch.tensor([[[0.0], [float("nan")]]]), [2])


def test_the_example_of_the_docstring_runs() -> None:
    source = AssignmentLayer.__doc__ or ""
    lines = source[source.index("import torch") : source.index("Args:")].splitlines()
    code = textwrap.dedent("\n".join("        " + line.strip() for line in lines))
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    assert len(code.strip().splitlines()) <= 12
    assert names["z"].shape == (32, 5, 3)
    assert (names["z"].sum(1) <= 2).all()
    assert names["network"].weight.grad.abs().max() > 0


def test_any_leading_shape() -> None:
    scores, worth = leaf(6, 5, 3), leaf(6, 5, 3, seed=1).detach()
    agents = torch.ones(6, 5, dtype=torch.bool)
    agents[2, 4] = False
    layer = AssignmentLayer("blackbox", tau=1.0)
    flat = layer(scores, [2, 2, 2], agents)
    flat_gradient = torch.autograd.grad(-(flat * worth).sum(), scores)[0]
    nested = scores.detach().reshape(2, 3, 5, 3).requires_grad_()
    z = layer(nested, [2, 2, 2], agents.view(2, 3, 5))
    assert z.shape == (2, 3, 5, 3)
    torch.testing.assert_close(z.view(6, 5, 3), flat)
    gradient = torch.autograd.grad(-(z * worth.view(2, 3, 5, 3)).sum(), nested)[0]
    torch.testing.assert_close(gradient.view(6, 5, 3), flat_gradient)
    single = scores.detach()[0].requires_grad_()
    z = layer(single, [2, 2, 2])
    assert z.shape == (5, 3)
    torch.testing.assert_close(torch.autograd.grad(-(z * worth[0]).sum(), single)[0], flat_gradient[0])
    step = surrogate_loss(nested, worth.view(2, 3, 5, 3), [2, 2, 2], agents.view(2, 3, 5), tau=1.0)
    torch.testing.assert_close(torch.autograd.grad(step.loss, nested)[0].view(6, 5, 3), flat_gradient / 6)


def test_states_of_different_sizes_share_a_batch_by_masks() -> None:
    large, small = leaf(1, 5, 3), leaf(1, 3, 2, seed=2)
    worth_large, worth_small = leaf(1, 5, 3, seed=1).detach(), leaf(1, 3, 2, seed=3).detach()
    layer = AssignmentLayer("blackbox", tau=1.0)

    def padded(big: Tensor, little: Tensor) -> Tensor:
        filled = torch.full((1, 5, 3), float("nan"), dtype=big.dtype)
        filled[:, :3, :2] = little
        return torch.cat((big, filled))

    scores = padded(large.detach(), small.detach()).requires_grad_()
    agents = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    tasks = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    z = layer(scores, [2, 2, 2], agents, tasks)
    together = torch.autograd.grad((z * padded(worth_large, worth_small).nan_to_num()).sum(), scores)[0]
    for b, (one, worth) in enumerate(((large, worth_large), (small, worth_small))):
        alone = layer(one, [2] * one.shape[2])
        n, m = one.shape[1:]
        torch.testing.assert_close(z[b : b + 1, :n, :m], alone)
        gradient = torch.autograd.grad((alone * worth).sum(), one)[0]
        torch.testing.assert_close(together[b : b + 1, :n, :m], gradient)
    assert (together[1, 3:] == 0).all()
    assert (together[1, :, 2] == 0).all()


def test_agents_may_stay_idle_at_a_price() -> None:
    scores = torch.tensor([[[5.0, 0.0], [3.0, -3.0]]]).requires_grad_()
    layer = AssignmentLayer("blackbox", lam=20.0)
    z = layer(scores, [1, 1], idle_price=1.0)
    assert z.tolist() == [[[1.0, 0.0], [0.0, 0.0]]]
    # J prefers that the second agent takes the first task: the first one then goes to the second or stays idle.
    z[0, 1, 0].neg().backward()
    assert scores.grad is not None
    assert scores.grad[0, 1, 0] < 0
    assert scores.grad[0, 0, 0] > 0


def test_forbidden_pairs_lower_bounds_and_constraints() -> None:
    scores, worth = leaf(4, 4, 3), leaf(4, 4, 3, seed=1).detach()
    allowed = torch.ones(4, 3, dtype=torch.bool)
    allowed[0, 0] = False
    z = AssignmentLayer("blackbox", lam=5.0)(
        scores.masked_fill(~allowed, torch.inf), [2, 2, 2], pair_mask=allowed, lower=[1, 1, 1]
    )
    gradient = torch.autograd.grad((z * worth).sum(), scores)[0]
    assert (z[:, 0, 0] == 0).all()
    assert (gradient[:, 0, 0] == 0).all()
    assert (z.sum(1) >= 1).all()
    limit = budget(np.ones((4, 3)) * [1.0, 2.0, 3.0], 6.5)
    z = AssignmentLayer("blackbox", lam=5.0)(scores, [2, 2, 2], constraints=[limit])
    assert ((z.detach() * torch.tensor([1.0, 2.0, 3.0])).sum((1, 2)) <= 6.5 + 1e-6).all()
    assert (torch.autograd.grad((z * worth).sum(), scores)[0] != 0).any()


def test_the_generator_is_part_of_the_state_and_the_global_one_is_left_alone() -> None:
    scores, worth = leaf(4, 5, 3), leaf(4, 5, 3, seed=1).detach()

    def gradient(layer: AssignmentLayer) -> Tensor:
        return torch.autograd.grad((layer(scores, [2, 2, 2]) * worth).sum(), scores)[0]

    before = torch.get_rng_state()
    layer = AssignmentLayer("perturbed", seed=3, samples=8)
    first = gradient(layer)
    saved = {key: value.clone() for key, value in layer.state_dict().items()}
    second = gradient(layer)
    assert (first != second).any()
    torch.testing.assert_close(gradient(AssignmentLayer("perturbed", seed=3, samples=8)), first, rtol=0, atol=0)
    assert (gradient(AssignmentLayer("perturbed", seed=4, samples=8)) != first).any()
    restored = AssignmentLayer("perturbed", samples=8)
    restored.load_state_dict(saved)
    torch.testing.assert_close(gradient(restored), second, rtol=0, atol=0)
    torch.testing.assert_close(gradient(copy.deepcopy(restored)), gradient(restored), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_backward_pass_sees_the_same_noise() -> None:
    scores, worth = leaf(4, 5, 3), leaf(4, 5, 3, seed=1).detach()
    value = (AssignmentLayer("score_function")(scores, [2, 2, 2]) * worth).sum()
    first = torch.autograd.grad(value, scores, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(value, scores)[0], first, rtol=0, atol=0)


def test_names_and_options_are_checked() -> None:
    with pytest.raises(UserError, match="unknown differentiator 'blackbx'; did you mean 'blackbox'"):
        AssignmentLayer("blackbx")
    with pytest.raises(UserError, match="differentiator 'imle': unknown option 'sample'; did you mean 'samples'"):
        AssignmentLayer("imle", sample=3)
    with pytest.raises(UserError, match="differentiator 'sinkhorn': forward = 'fuzzy'"):
        AssignmentLayer("sinkhorn", forward="fuzzy")
    with pytest.raises(UserError, match="unknown assignment solver"):
        AssignmentLayer(solver="cvxpy")(leaf(1, 2, 2), [1, 1])
    with pytest.raises(ValueError, match="Perturbed draws noise: give it a generator"):
        surrogate_loss(leaf(1, 2, 2), torch.zeros(1, 2, 2), [1, 1], differentiator="perturbed")
    made = make_differentiator("blackbox")
    with pytest.raises(ValueError, match=r"options .'lam'. belong to a differentiator given by its name"):
        surrogate_loss(leaf(1, 2, 2), torch.zeros(1, 2, 2), [1, 1], differentiator=made, lam=3.0)
    assert repr(AssignmentLayer("imle", samples=2)) == "AssignmentLayer('imle', solver='auto', samples=2)"
