"""The torch solver against the kernel, on tensors and behind the common interface."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.assignment_lps import SHAPES, dual_objective, random_problem, violation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from components.errors import UserError
from modules.assignment import AssignmentProblem, InfeasibleAssignment, budget, explain, make_problem, solve
from modules.assignment import torch_solver as module
from modules.assignment.torch_solver import NoAssignment, solve_tensors, solve_torch

KINDS = [(ties, pairs, bounds) for ties in (False, True) for pairs in (False, True) for bounds in (False, True)]


def tensors_of(problem: AssignmentProblem, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Any]:
    scores = torch.from_numpy(problem.scores).to(dtype)
    rest = (problem.capacity, problem.agent_mask, problem.task_mask, problem.pair_mask, problem.lower)
    return [scores.to(device)] + [None if x is None else torch.from_numpy(x).to(device) for x in rest]


@pytest.mark.parametrize(("ties", "pairs", "bounds"), KINDS)
def test_optimum_and_prices_are_right(ties: bool, pairs: bool, bounds: bool) -> None:
    for n, m in SHAPES:
        problem = random_problem(np.random.default_rng([n, m]), 100, n, m, ties, pairs, bounds)
        answer, reference = solve(problem, "torch"), solve(problem, "kernel")
        assert violation(problem, answer.z) == 0
        np.testing.assert_allclose(answer.value, reference.value, atol=1e-12)
        assert answer.price is not None
        np.testing.assert_allclose(dual_objective(problem, answer.price), answer.value, atol=1e-12)
        assert (answer.price[(problem.lower == 0) if problem.lower is not None else ...] >= 0).all()
        assert (answer.price[~problem.task_mask] == 0).all()
        assert ((answer.index == -1) == ~problem.agent_mask).all()
        if not bounds:
            assert reference.price is not None
            np.testing.assert_allclose(answer.price, reference.price, atol=1e-12)
        if not ties:
            np.testing.assert_array_equal(answer.index, reference.index)
    assert answer.solver == "torch"


def test_larger_states_are_right_too() -> None:
    rng = np.random.default_rng(1)
    capacity = 1 + rng.multinomial(60, np.ones(40) / 40, size=6)
    problem = make_problem(rng.normal(size=(6, 100, 40)), capacity)
    answer, reference = solve(problem, "torch"), solve(problem, "kernel")
    np.testing.assert_array_equal(answer.index, reference.index)
    np.testing.assert_allclose(answer.price, reference.price, atol=1e-12)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 8, 9, 20])
def test_one_agent_too_many_moves_a_whole_chain(length: int) -> None:
    """Agent i may go to tasks i - 1 and i only, and likes i - 1 better; agent 0 must go to task 0."""
    allowed = np.eye(length, dtype=bool) | np.eye(length, k=-1, dtype=bool)
    scores = np.where(np.eye(length, k=-1, dtype=bool), 1.0, 0.0)
    answer = solve(make_problem(scores[None], [1] * length, pair_mask=allowed), "torch")
    assert answer.index.tolist() == [list(range(length))]
    assert answer.price is not None
    assert answer.price.tolist() == [[length - 1.0 - j for j in range(length)]]


@pytest.mark.parametrize(("ties", "pairs", "bounds"), KINDS)
def test_float32_is_right_up_to_its_rounding(ties: bool, pairs: bool, bounds: bool) -> None:
    problem = random_problem(np.random.default_rng(2), 300, 7, 5, ties, pairs, bounds)
    index, price = solve_tensors(*tensors_of(problem, torch.float32))
    assert index.dtype == torch.int64
    assert price.dtype == torch.float32
    reference = solve(problem, "kernel")
    chosen = np.take_along_axis(problem.scores, np.maximum(index.numpy(), 0)[:, :, None], 2)[:, :, 0]
    value = np.where(index.numpy() >= 0, chosen, 0.0).sum(1)
    np.testing.assert_allclose(value, reference.value, atol=1e-5)
    np.testing.assert_allclose(dual_objective(problem, price.double().numpy()), value, atol=1e-4)


@pytest.mark.parametrize(("ties", "pairs", "bounds"), KINDS)
def test_order_and_size_of_the_batch_do_not_matter(ties: bool, pairs: bool, bounds: bool) -> None:
    problem = random_problem(np.random.default_rng(3), 60, 6, 4, ties, pairs, bounds)
    index, price = solve_tensors(*tensors_of(problem))
    order = np.random.default_rng(4).permutation(60)
    for states in (order, *np.arange(60)[::7, None]):
        some = solve_tensors(*tensors_of(problem.take(states)))
        assert torch.equal(some[0], index[states])
        assert torch.equal(some[1], price[states])


def test_ties_go_to_the_lowest_index_when_there_is_room() -> None:
    assert solve(make_problem(np.zeros((1, 3, 4)), [3, 3, 3, 3]), "torch").index.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_of_the_scores_does_not_matter(scale: float) -> None:
    problem = random_problem(np.random.default_rng(5), 60, 5, 4, pairs=True, bounds=True)
    scaled = problem.with_scores(problem.scores * scale)
    np.testing.assert_array_equal(solve(scaled, "torch").index, solve(problem, "torch").index)


def arbitrary_problem(states: int) -> AssignmentProblem:
    """About half of the states have no assignment, for all kinds of reasons."""
    rng = np.random.default_rng(6)
    return make_problem(
        rng.normal(size=(states, 4, 3)),
        rng.integers(0, 4, (states, 3)),
        rng.random((states, 4)) > 0.2,
        rng.random((states, 3)) > 0.2,
        rng.random((states, 4, 3)) > 0.3,
        rng.integers(0, 3, (states, 3)),
    )


def test_states_without_an_assignment_are_recognized() -> None:
    problem = arbitrary_problem(120)
    refused = 0
    for b in range(120):
        state = problem.take(np.array([b]))
        expected = explain(state, 0)
        if expected is None:
            assert violation(state, solve_torch(state).z) == 0
            continue
        with pytest.raises(InfeasibleAssignment) as caught:
            solve_torch(state)
        assert caught.value.certificate == expected.certificate
        refused += 1
    assert 20 < refused < 100


def test_the_first_state_without_an_assignment_is_named() -> None:
    problem = arbitrary_problem(300)
    fine = np.array([explain(problem, b) is None for b in range(300)])
    states = np.concatenate([np.flatnonzero(fine)[:40], np.flatnonzero(~fine)[:2], np.flatnonzero(fine)[:9]])
    with pytest.raises(NoAssignment, match="state 40 of 51 has no assignment"):
        solve_tensors(*tensors_of(problem.take(states)))


def test_nobody_alive_nothing_alive_one_task() -> None:
    scores = np.full((3, 2, 2), np.nan)
    scores[2, :, 0] = 1.5
    agents, tasks = np.array([[0, 0], [1, 1], [1, 1]]), np.array([[1, 1], [0, 0], [1, 0]])
    answer = solve(make_problem(scores, [2, 2], agents, tasks), "torch")
    assert answer.index.tolist() == [[-1, -1], [-1, -1], [0, 0]]
    assert answer.price is not None
    assert (answer.price == 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty_sizes(shape: tuple[int, int, int]) -> None:
    answer = solve(make_problem(np.zeros(shape), np.full(shape[2], 3)), "torch")
    assert answer.z.shape == shape
    assert (answer.index == -1).all()


def test_a_lower_bound_without_any_agent_cannot_be_kept() -> None:
    agents, tasks = torch.ones(2, 0, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)
    lower = torch.tensor([[0], [1]])
    with pytest.raises(NoAssignment, match="state 1 of 2"):
        solve_tensors(torch.zeros(2, 0, 1), torch.ones(2, 1), agents, tasks, lower=lower)


def test_capacities_may_be_of_any_type_and_infinite() -> None:
    scores = torch.randn(30, 4, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.ones(30, 4, dtype=torch.bool), torch.ones(30, 3, dtype=torch.bool)
    whole = solve_tensors(scores, torch.full((30, 3), 2), *masks)[0]
    assert torch.equal(whole, solve_tensors(scores, torch.full((30, 3), 2.0), *masks)[0])
    unlimited = solve_tensors(scores, torch.full((30, 3), float("inf")), *masks)[0]
    assert torch.equal(unlimited, scores.argmax(2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores", torch.zeros(2, 3), r"scores must be float32 or float64 of the shape .* not .*\(2, 3\)"),
        ("scores", torch.zeros(2, 3, 2, dtype=torch.int64), "scores must be float32 or float64"),
        ("scores", torch.full((2, 3, 2), torch.nan), r"state 0: the score of an allowed pair at \[0, 0\] is nan"),
        ("capacity", torch.zeros(2), r"capacity must have the shape \(2, 2\), not \(2,\)"),
        ("capacity", torch.tensor([[3.0, 3.0], [3.0, 1.5]]), r"state 1: the capacity at \[1\] is 1.5; it must be a"),
        ("capacity", torch.tensor([[3.0, torch.nan], [3.0, 3.0]]), r"state 0: the capacity at \[1\] is nan"),
        ("capacity", torch.tensor([[3, 3], [-1, 3]]), r"state 1: the capacity at \[0\] is -1"),
        ("lower", torch.full((2, 2), torch.inf), r"state 0: the lower bound at \[0\] is inf"),
        ("lower", torch.tensor([[0, 0], [0, -2]]), r"state 1: the lower bound at \[1\] is -2"),
        ("agent_mask", torch.ones(2, 3), "agent_mask must be bool, not torch.float32"),
        ("pair_mask", torch.ones(3, 2, dtype=torch.bool), r"pair_mask must have the shape \(2, 3, 2\)"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused(name: str, value: Tensor, message: str) -> None:
    given: dict[str, Any] = {
        "scores": torch.zeros(2, 3, 2),
        "capacity": torch.full((2, 2), 3),
        "agent_mask": torch.ones(2, 3, dtype=torch.bool),
        "task_mask": torch.ones(2, 2, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=message):
        solve_tensors(**(given | {name: value}))


def test_what_needs_the_general_lp_is_refused() -> None:
    with pytest.raises(UserError, match=r"'torch' needs integral capacities, but state 0 has \[1.5\]: use .*'glop'"):
        solve(make_problem(np.zeros((1, 1, 1)), [1.5]), "torch")
    with pytest.raises(UserError, match=r"'torch' knows no extra constraints, but the problem has 'fuel'.*'glop'"):
        solve(make_problem(np.zeros((1, 1, 1)), [1], constraints=[budget([[1.0]], 1.0, "fuel")]), "torch")


def test_arguments_are_left_as_they_are_and_no_graph_is_built() -> None:
    problem = random_problem(np.random.default_rng(7), 20, 5, 3, pairs=True, bounds=True)
    given = tensors_of(problem)
    copies = [tensor.clone() for tensor in given]
    given[0].requires_grad_()
    index, price = solve_tensors(*given)
    assert not index.requires_grad
    assert not price.requires_grad
    for tensor, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(tensor.detach().numpy(), copy.numpy())


class Calls(TorchDispatchMode):
    """Notes the operations below the Python interface."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        for tensor in args:
            # A mask as an index waits for the device, to know how many there are.
            if function.overloadpacket.__name__ in ("index", "index_put", "index_put_") and isinstance(tensor, list):
                assert all(index is None or index.dtype == torch.int64 for index in tensor)
        return function(*args, **(kwargs or {}))


def test_a_round_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(np.random.default_rng(8), 100, 9, 5, pairs=True, bounds=True)
    rounds: list[int] = []
    shift = module._shift

    def counted(work: Any, found: Tensor, target: Tensor) -> None:
        rounds.append(len(found))
        shift(work, found, target)

    monkeypatch.setattr(module, "_shift", counted)
    given = tensors_of(problem)
    with Calls() as calls:
        solve_tensors(*given)
    waits = calls.names.count("_local_scalar_dense")
    assert len(rounds) > 6
    assert rounds[0] == 100
    assert rounds[-1] < 100  # finished states leave
    assert waits == len(rounds) + 2  # the numbers before, the states without an assignment after
    assert not {"nonzero", "masked_select", "_to_cpu", "unique"} & set(calls.names)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_answers_as_the_cpu(dtype: torch.dtype) -> None:
    problem = random_problem(np.random.default_rng(9), 500, 9, 5, ties=True, pairs=True, bounds=True)
    index, price = solve_tensors(*tensors_of(problem, dtype))
    there = solve_tensors(*tensors_of(problem, dtype, "cuda"))
    assert there[0].is_cuda
    assert torch.equal(there[0].cpu(), index)
    assert torch.equal(there[1].cpu(), price)


def test_the_layer_takes_the_torch_solver() -> None:
    from modules.assignment import AssignmentLayer

    scores = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    worth = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(2))
    gradients: list[NDArray] = []
    for solver in ("torch", "kernel"):
        layer = AssignmentLayer("blackbox", solver=solver)
        (gradient,) = torch.autograd.grad((layer(scores, [2, 2, 2]) * worth).sum(), scores)
        gradients.append(gradient.numpy())
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_array_equal(*gradients)
