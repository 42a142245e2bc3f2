"""Solves random assignment problems and checks every answer against SciPy's HiGHS.

    python benchmarks/fuzz_assignment.py --problems 100000
    python benchmarks/fuzz_assignment.py --problems 2000 --solvers kernel lsa glop --seed 7

The problems have ties, dead agents and tasks, forbidden pairs, slack, lower bounds, zero and infinite capacities, and
scores of the sizes 1e-6 to 1e6, also mixed within a problem. Checked: the assignment keeps all bounds; its objective is
that of HiGHS to 1e-9 of the largest score; the prices are a valid dual certificate; a problem is refused only with a
certificate that is true, counted by hand. Assignments themselves are never compared: ties have several optima. HiGHS
gets a few dozen problems as one block-diagonal LP. Prints JSON and exits with 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from modules.assignment import (  # noqa: E402
    Assignment,
    AssignmentProblem,
    Certificate,
    InfeasibleAssignment,
    make_problem,
    solve,
)

Array = NDArray[Any]

BLOCKS = 32
TOLERANCE = 1e-9
# Most agents and tasks; one batch in twenty is large.
SMALL, LARGE = (9, 7), (30, 12)
SCORES = ("normal", "ties", "equal agents", "equal tasks", "lognormal", "mixed sizes")
SIMPLEX = {"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10}


@dataclass
class Report:
    """What was seen.

    Attributes:
        solved: number of feasible problems.
        refused: kind of certificate -> number of problems.
        features: feature -> number of problems that have it.
        worst: what was compared -> largest error relative to the largest score.
        wrong: what went wrong, in words.
    """

    solved: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def compare(self, what: str, difference: Array, scale: Array, where: str) -> None:
        """Notes the largest error, and a failure where it is not within the tolerance."""
        error = np.abs(difference) / scale
        self.worst[what] = max(self.worst.get(what, 0.0), float(error.max(initial=0.0)))
        self.demand(what, error <= TOLERANCE, where)

    def demand(self, what: str, right: Array, where: str) -> None:
        """Notes a failure where ``right`` [B] is false."""
        self.wrong.extend(f"{where}, feasible problem {b}: {what}" for b in np.flatnonzero(~right))


def random_scores(rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> Array:
    """Scores [B, N, M]; the size of each state's is between 1e-6 and 1e6 in half of the batches."""
    b, n, m = shape
    scores = rng.normal(size=shape)
    if kind == "ties":
        scores = rng.integers(-2, 3, shape).astype(np.float64)
    elif kind == "equal agents":
        scores = np.repeat(rng.normal(size=(b, 1, m)), n, 1)
    elif kind == "equal tasks":
        scores = np.repeat(rng.normal(size=(b, n, 1)), m, 2)
    elif kind == "lognormal":
        scores = rng.lognormal(0.0, 3.0, shape)
    elif kind == "mixed sizes":
        scores = scores * 10.0 ** rng.uniform(-6, 6, (b, n, m))
    return scores * 10.0 ** rng.uniform(-6, 6, (b, 1, 1)) if rng.random() < 0.5 else scores


def random_problem(rng: np.random.Generator, kind: str, n: int, m: int) -> AssignmentProblem:
    """A batch of BLOCKS states; most are feasible, some are not."""
    b = BLOCKS
    dead_agents, dead_tasks = rng.choice([0.0, 0.2, 0.5], 2)
    agents, tasks = rng.random((b, n)) >= dead_agents, rng.random((b, m)) >= dead_tasks
    pairs = rng.random((b, n, m)) >= rng.choice([0.1, 0.3, 0.6]) if rng.random() < 0.5 else None
    # The bounds surround the loads of a random assignment, so that most states are feasible, if only just.
    options = agents[:, :, None] & tasks[:, None, :] & (True if pairs is None else pairs)
    chosen = np.where(options, rng.random((b, n, m)), -1.0).argmax(2)
    load = ((chosen[:, :, None] == np.arange(m)) & options).sum(1)
    capacity = load + rng.integers(0, 1 + rng.integers(0, 3), (b, m)).astype(np.float64)
    capacity[rng.random((b, m)) < 0.05] = np.inf
    lower = None
    if rng.random() < 0.5:
        lower = np.maximum(load - rng.integers(0, 3, (b, m)), 0) * (rng.random((b, m)) < rng.choice([0.3, 1.0]))
    broken = rng.random(b) < rng.choice([0.0, 0.0, 0.0, 0.3])
    if lower is None or rng.random() < 0.5:
        capacity[broken] = rng.integers(0, 3, (int(broken.sum()), m))
    else:
        lower[broken] = np.minimum(rng.integers(0, 4, (int(broken.sum()), m)), capacity[broken])
    scores = random_scores(rng, kind, (b, n, m))
    scores[~options] = rng.choice([np.nan, np.inf, -np.inf, 1e9])
    return make_problem(scores, capacity, agents, tasks, pairs, lower)


def highs(problem: AssignmentProblem, scale: Array) -> Array:
    """[B] objectives of a feasible batch, from one block-diagonal LP."""
    b, n, m = problem.scores.shape
    state, agent, task = np.nonzero(problem.allowed())
    scores = problem.scores[state, agent, task] / scale[state]
    if not len(scores):
        return np.zeros(b)
    columns, ones = np.arange(len(scores)), np.ones(len(scores))
    places = coo_array((ones, (state * m + task, columns)), (b * m, len(scores))).tocsr()
    limited = np.isfinite(problem.capacity.ravel()) & problem.task_mask.ravel()
    rows, bounds = [places[limited]], [problem.capacity.ravel()[limited]]
    if problem.lower is not None:
        bounded = problem.lower.ravel() > 0
        rows.append(-places[bounded])
        bounds.append(-problem.lower.ravel()[bounded])
    once = coo_array((ones, (state * n + agent, columns)), (b * n, len(scores))).tocsr()
    in_lp = (problem.agent_mask & problem.task_mask.any(1, keepdims=True)).ravel()
    result = linprog(
        -scores,
        A_ub=vstack(rows).tocsr(),
        b_ub=np.concatenate(bounds),
        A_eq=once[in_lp],
        b_eq=np.ones(int(in_lp.sum())),
        method="highs-ds",
        options=SIMPLEX,
    )
    if result.status != 0:
        raise RuntimeError(f"HiGHS: {result.message}")
    return np.bincount(state, problem.scores[state, agent, task] * result.x, b)


def dual_objective(problem: AssignmentProblem, price: Array) -> Array:
    """[B] sum_i max_j (c_ij - p_j) + sum_j (k_j max(p_j, 0) - l_j max(-p_j, 0))."""
    allowed = problem.allowed()
    net = np.where(allowed, problem.scores - price[:, None, :], -np.inf).max(2)
    agents = np.where(allowed.any(2), net, 0.0).sum(1)
    capacity = np.where(price > 0.0, problem.capacity, 0.0)
    lower = np.zeros_like(price) if problem.lower is None else problem.lower
    return agents + (capacity * np.maximum(price, 0.0) - lower * np.maximum(-price, 0.0)).sum(1)


def keeps_all_bounds(problem: AssignmentProblem, answer: Assignment) -> Array:
    """[B] whether every living agent has one allowed task, the others none, and every task a load within its bounds."""
    index, z = answer.index, answer.z
    in_lp = problem.agent_mask & problem.task_mask.any(1, keepdims=True)
    load = z.sum(1)
    right = ((index >= 0) == in_lp).all(1) & (z.sum(2) == in_lp).all(1) & ~(z * ~problem.allowed()).any((1, 2))
    right &= (load <= problem.capacity).all(1)
    if problem.lower is not None:
        right &= ((load >= problem.lower) | ~problem.task_mask.any(1, keepdims=True)).all(1)
    return np.asarray(right)


def is_true(problem: AssignmentProblem, claim: Certificate) -> bool:
    """Whether a certificate proves, by counting alone, that its state has no assignment."""
    state, agents, tasks = claim.state, list(claim.agents), list(claim.tasks)
    allowed, living = problem.allowed()[state], problem.agent_mask[state]
    capacity = problem.capacity[state, tasks].sum()
    lower = 0.0 if problem.lower is None else problem.lower[state, tasks].sum()
    if not problem.task_mask[state, tasks].all() or not living[agents].all() or claim.missing <= 0:
        return False
    if claim.kind == "places":
        elsewhere = np.delete(allowed[agents], tasks, 1)
        return len(set(agents)) - capacity == claim.missing and not elsewhere.any()
    if claim.kind == "agents":
        others = np.delete(allowed[:, tasks], agents, 0)
        return lower - len(set(agents)) == claim.missing and not others.any()
    return claim.kind == "bounds" and len(tasks) == 1 and lower - capacity == claim.missing


def solve_feasible(
    problem: AssignmentProblem, solver: str, report: Report, where: str
) -> tuple[AssignmentProblem, Assignment | None]:
    """Takes out what the solver refuses, after a check of the reasons; then solves the rest."""
    while len(problem.scores):
        answer = solve_or_refuse(problem, solver)
        if isinstance(answer, Assignment):
            return problem, answer
        report.refused[answer.kind] += 1
        if not is_true(problem, answer):
            report.wrong.append(f"{where}: false certificate {answer}")
        problem = problem.take(np.arange(len(problem.scores)) != answer.state)
    return problem, None


def solve_or_refuse(problem: AssignmentProblem, solver: str) -> Assignment | Certificate:
    """The assignments, or why there are none in one of the states."""
    try:
        return solve(problem, solver)
    except InfeasibleAssignment as error:
        return error.certificate


def check_batch(problem: AssignmentProblem, solvers: Sequence[str], report: Report, where: str) -> None:
    """One batch through the solvers and HiGHS."""
    problem, answer = solve_feasible(problem, solvers[0], report, where)
    if answer is None:
        return
    b = len(problem.scores)
    report.solved += b
    count_features(problem, report)
    largest = np.where(problem.allowed(), np.abs(problem.scores), 0.0).max((1, 2), initial=0.0)
    scale = np.where(largest > 0.0, largest, 1.0)
    reference = highs(problem, scale)
    for solver in solvers:
        answer = answer if solver == solvers[0] else solve(problem, solver)
        report.demand(f"{solver}: bounds", keeps_all_bounds(problem, answer), where)
        report.compare(f"{solver}: objective", answer.value - reference, scale, where)
        if answer.price is None:
            continue
        free = np.zeros_like(answer.price) if problem.lower is None else problem.lower
        signs = (answer.price >= 0.0) | (free > 0.0)
        report.demand(f"{solver}: sign of the prices", np.asarray(signs.all(1)), where)
        report.demand(f"{solver}: dead tasks", ((answer.price == 0.0) | problem.task_mask).all(1), where)
        dual = dual_objective(problem, answer.price)
        report.compare(f"{solver}: dual objective", dual - answer.value, scale, where)


def count_features(problem: AssignmentProblem, report: Report) -> None:
    """How many of the solved problems have what."""
    b = len(problem.scores)
    has = {
        "dead agents": (~problem.agent_mask).any(1),
        "dead tasks": (~problem.task_mask).any(1),
        "no living agent": ~problem.agent_mask.any(1),
        "no living task": ~problem.task_mask.any(1),
        "zero capacity": ((problem.capacity == 0) & problem.task_mask).any(1),
        "forbidden pairs": np.zeros(b) if problem.pair_mask is None else (~problem.pair_mask).any((1, 2)),
        "lower bounds": np.zeros(b) if problem.lower is None else problem.lower.any(1),
        "slack": np.where(problem.task_mask, problem.capacity, 0).sum(1) > problem.agent_mask.sum(1),
    }
    report.features.update({name: int(states.sum()) for name, states in has.items()})


def fuzz(problems: int, seed: int, solvers: Sequence[str]) -> Report:
    """Solves and checks at least so many problems, feasible and infeasible ones together."""
    report = Report()
    for batch in range(-(-problems // BLOCKS)):
        rng = np.random.default_rng([seed, batch])
        kind, largest = SCORES[batch % len(SCORES)], LARGE if batch % 20 == 19 else SMALL
        n, m = (int(rng.integers(1, 1 + size)) for size in largest)
        where = f"seed {seed}, batch {batch} ({n} agents, {m} tasks, {kind})"
        report.features[kind] += BLOCKS
        check_batch(random_problem(rng, kind, n, m), solvers, report, where)
    return report


def main(argv: Sequence[str]) -> int:
    """Prints the report; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solvers", nargs="+", default=["kernel", "lsa"], help="the first one finds the infeasible")
    given = parser.parse_args(argv)
    start = time.perf_counter()
    report = fuzz(given.problems, given.seed, given.solvers)
    document = {
        "problems": report.solved + sum(report.refused.values()),
        "solved": report.solved,
        "infeasible": dict(report.refused),
        "features": dict(report.features),
        "worst_relative_error": report.worst,
        "wrong": len(report.wrong),
        "first_wrong": report.wrong[:10],
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(document, indent=2))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
