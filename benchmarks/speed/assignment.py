"""Measures the assignment solvers side by side, one thread, and writes JSON and plots of their growth.

    make bench-assignment                                  # into results/bench, about ten minutes on one core
    python benchmarks/speed/assignment.py FOLDER [--quick] [--cvxpy]

All rates are LPs per second of CPU time of this process, best and median over windows of CPU time. Timed is the way
from checked NumPy problems to assignments. Scores are standard normal; ``tight`` capacities are a random split of N
into M positive parts, ``slack`` ones have ceil(N/2) places more. Beside the solvers of ``modules.assignment``:
``lsa_direct``, SciPy's function called in a loop, and ``glop_rebuilt``, OR-Tools as it is usually written (see
assignment_methods.py). Threads are measured in wall time. ``--cvxpy`` makes a temporary environment for CVXPY, which
cannot live beside OR-Tools, and needs the package index.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.speed.assignment_methods import direct_lsa, rebuilt_glop  # noqa: E402
from benchmarks.speed.assignment_plot import plot  # noqa: E402
from benchmarks.speed.throughput import installed, machine, rates, tell  # noqa: E402

from components.files import write_json_atomic  # noqa: E402
from modules.assignment import AssignmentLayer, AssignmentProblem, kernel, make_problem, solve  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

KINDS = ("tight", "slack")
CVXPY_SIZES = ((3, 3), (5, 3), (7, 5), (10, 10), (20, 20))
LAYER_STATES, LAYER_SIZE = 1600, (5, 3)
LAYERS = {
    "blackbox": AssignmentLayer("blackbox", solver="kernel"),
    "blackbox, torch": AssignmentLayer("blackbox", solver="torch"),
    "imle, 1 copy": AssignmentLayer("imle", solver="kernel", samples=1),
    "imle, 8 copies": AssignmentLayer("imle", solver="kernel"),
}

# Solves all states of a problem and returns their objectives [B].
Method = Callable[[AssignmentProblem], Any]


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        windows: windows of CPU time per method.
        seconds: CPU seconds of each, at least.
        sizes: (N, M) of the main table.
        agents: N, with M = min(agents), of the growth with agents.
        tasks: M, with N = max(agents), of the growth with tasks.
        growth_seconds: CPU seconds of a window there.
        threads: (B, N, M) of the comparison of threads.
    """

    windows: int
    seconds: float
    sizes: tuple[tuple[int, int], ...]
    agents: tuple[int, ...]
    tasks: tuple[int, ...]
    growth_seconds: float
    threads: tuple[tuple[int, int, int], ...]


FULL = Effort(
    windows=5,
    seconds=0.4,
    sizes=((3, 3), (5, 3), (7, 5), (10, 10), (20, 20), (50, 20), (100, 50), (1000, 500)),
    agents=(5, 10, 20, 40, 80, 160, 320),
    tasks=(5, 10, 20, 40, 80, 160, 320),
    growth_seconds=0.1,
    threads=((40000, 5, 3), (1600, 20, 20), (1600, 50, 20)),
)
QUICK = Effort(2, 0.005, ((3, 3), (5, 3), (7, 5)), (5, 10), (5, 10), 0.002, ((1600, 5, 3),))


def main(argv: Sequence[str]) -> int:
    """Writes ``assignment.json`` and ``assignment.png`` and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it works, measures nothing")
    parser.add_argument("--cvxpy", action="store_true", help="also CVXPY, in a temporary environment")
    given = parser.parse_args(argv)
    effort = QUICK if given.quick else FULL
    torch.set_num_threads(1)
    use_threads(1)
    load_before = os.getloadavg()
    began = time.perf_counter()
    warm_up()
    document = {
        "unit": "LPs per CPU second",
        "windows": effort.windows,
        "sizes": [measure_size(n, m, kind, effort) for n, m in effort.sizes for kind in KINDS],
        "growth_with_agents": [measure_growth(n, min(effort.agents), effort) for n in effort.agents],
        "growth_with_tasks": [measure_growth(max(effort.agents), m, effort) for m in effort.tasks],
        "threads": [measure_threads(*shape, effort) for shape in effort.threads],
        "layer": measure_layer(effort),
        "cvxpy": measure_cvxpy(effort) if given.cvxpy else None,
        "machine": {
            **machine(),
            **{package: installed(package) for package in ("scipy", "ortools")},
            "load_average_before": load_before,
            "load_average_after": os.getloadavg(),
        },
        **git_commit(ROOT),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }
    given.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(given.folder / "assignment.json", document)
    plot(document, given.folder / "assignment.png")
    print(tables(document))
    return 0


def random_problem(rng: np.random.Generator, b: int, n: int, m: int, kind: str = "tight") -> AssignmentProblem:
    """B states; with fewer agents than tasks some tasks have no place."""
    least = np.ones(m, np.int64) if n >= m else np.zeros(m, np.int64)
    share = np.full(m, 1.0 / m)
    capacity = least + rng.multinomial(n - least.sum(), share, size=b)
    if kind == "slack":
        capacity += rng.multinomial(-(-n // 2), share, size=b)
    return make_problem(rng.normal(size=(b, n, m)), capacity)


def batches_of(n: int, m: int, kind: str) -> list[AssignmentProblem]:
    """Several batches of 1600 states, so that no processor learns them; fewer and smaller ones of large states."""
    rng = np.random.default_rng([n, m])
    states = max(1, min(1600, 1_000_000 // (n * m)))
    return [random_problem(rng, states, n, m, kind) for _ in range(4 if n * m <= 10_000 else 2)]


def by_solver(name: str) -> Method:
    """A solver of this project as a method."""
    return lambda problem: np.asarray(solve(problem, name).value)


def state_by_state(solve_one: Callable[[Any, Any], float]) -> Method:
    """A function of one state's scores and capacity as a method."""

    def solve_all(problem: AssignmentProblem) -> Any:
        capacity = problem.capacity.astype(np.int64)
        return np.array([solve_one(scores, places) for scores, places in zip(problem.scores, capacity, strict=True)])

    return solve_all


METHODS: dict[str, Method] = {
    **{name: by_solver(name) for name in ("kernel", "torch", "glop", "lsa")},
    "lsa_direct": state_by_state(direct_lsa),
    "glop_rebuilt": state_by_state(rebuilt_glop),
}
# These gain by large batches and always get whole ones.
BATCHED = ("kernel", "torch")


def warm_up() -> None:
    """Compiles and imports."""
    problem = random_problem(np.random.default_rng(0), 4, 4, 3)
    for method in METHODS.values():
        method(problem)


def measure_size(n: int, m: int, kind: str, effort: Effort) -> dict[str, Any]:
    """All methods on states of one size, how many times as fast as they the kernel is, and whether they agree."""
    tell(f"N={n}, M={m}, {kind}")
    batches = batches_of(n, m, kind)
    methods = measure_methods(batches, effort.windows, effort.seconds)
    first = batches[0].take(np.array([0]))
    return {
        "n_agents": n,
        "n_tasks": m,
        "capacities": kind,
        "states": len(batches[0].scores),
        "methods": methods,
        "kernel_times_as_fast_as": {
            name: round(methods["kernel"]["median"] / rate["median"], 1)
            for name, rate in methods.items()
            if name != "kernel"
        },
        "largest_difference": float(np.ptp([METHODS[name](first)[0] for name in methods])),
    }


def measure_growth(n: int, m: int, effort: Effort) -> dict[str, Any]:
    """All methods on tight states of one size, briefly."""
    tell(f"growth: N={n}, M={m}")
    methods = measure_methods(batches_of(n, m, "tight"), min(effort.windows, 3), effort.growth_seconds)
    return {"n_agents": n, "n_tasks": m, "methods": methods}


def measure_methods(batches: list[AssignmentProblem], windows: int, seconds: float) -> dict[str, dict[str, float]]:
    """Method -> best and median rate."""
    return {name: measure(method, batches, name in BATCHED, windows, seconds) for name, method in METHODS.items()}


def measure(
    method: Method, batches: list[AssignmentProblem], whole: bool, windows: int, seconds: float
) -> dict[str, float]:
    """Rates on whole batches, or on pieces that fit into a window a few times."""
    pieces = batches
    if not whole:
        began = time.process_time()
        method(batches[0].take(np.array([0])))
        once = time.process_time() - began
        if once > windows * seconds:
            return {"best": 1.0 / once, "median": 1.0 / once}
        length = min(len(batches[0].scores), max(1, int(0.3 * seconds / once)))
        pieces = [batch.take(np.arange(length)) for batch in batches]
    turns = cycle(pieces)

    def play() -> int:
        piece = next(turns)
        method(piece)
        return len(piece.scores)

    play()
    return rates(play, windows, seconds)


def measure_threads(b: int, n: int, m: int, effort: Effort) -> dict[str, Any] | None:
    """The kernel's wall time with one thread and with two, in turn; ``None`` where there is one core."""
    if len(os.sched_getaffinity(0)) < 2:
        return None
    tell(f"threads: B={b}, N={n}, M={m}")
    problem = random_problem(np.random.default_rng([b, n, m]), b, n, m)
    best = {1: np.inf, 2: np.inf}
    for _ in range(10 * effort.windows):
        for threads in best:
            use_threads(threads)
            began = time.perf_counter()
            solve(problem, "kernel")
            best[threads] = min(best[threads], time.perf_counter() - began)
    use_threads(1)
    return {
        "states": b,
        "n_agents": n,
        "n_tasks": m,
        "lps_per_second": {str(threads): round(b / spent) for threads, spent in best.items()},
        "two_times_as_fast_as_one": round(best[1] / best[2], 2),
    }


def use_threads(threads: int) -> None:
    """How many threads the kernel may use, as if NUMBA_NUM_THREADS had been set so."""
    settings: Any = kernel.config
    settings.NUMBA_NUM_THREADS = threads


def measure_layer(effort: Effort) -> dict[str, Any]:
    """CPU milliseconds of a forward and a backward pass of the layer, float32 scores."""
    tell("layer")
    rng = torch.Generator().manual_seed(0)
    n, m = LAYER_SIZE
    scores, worth = (torch.randn(LAYER_STATES, n, m, generator=rng) for _ in range(2))
    capacity = random_problem(np.random.default_rng(0), LAYER_STATES, n, m).capacity
    found: dict[str, Any] = {"states": LAYER_STATES, "n_agents": n, "n_tasks": m}
    for label, layer in LAYERS.items():

        def step(layer: AssignmentLayer = layer) -> int:
            leaf = scores.clone().requires_grad_()
            (layer(leaf, capacity) * worth).sum().backward()
            return 1

        step()
        rate = rates(step, effort.windows, effort.seconds)
        found[label] = {name: round(1000.0 / value, 3) for name, value in rate.items()}
    return found


def measure_cvxpy(effort: Effort) -> dict[str, Any]:
    """The same tight problems by CVXPY, in an environment that is made for it and removed."""
    tell("CVXPY: making an environment")
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        venv.create(python.parents[1], with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "cvxpy"], check=True)
        arrays: dict[str, Any] = {}
        values = {}
        for n, m in CVXPY_SIZES:
            problem = batches_of(n, m, "tight")[0].take(np.arange(20))
            arrays |= {f"scores_{n}_{m}": problem.scores, f"capacity_{n}_{m}": problem.capacity}
            values[n, m] = solve(problem, "kernel").value[0]
        np.savez(Path(folder) / "problems.npz", **arrays)
        tell("CVXPY: solving")
        child = Path(__file__).with_name("assignment_methods.py")
        seconds = effort.windows * effort.seconds
        done = subprocess.run(
            [python, child, Path(folder) / "problems.npz", str(seconds)],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            check=True,
            capture_output=True,
            text=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    for row in found["sizes"]:
        row["difference"] = abs(row.pop("value") - values[row["n_agents"], row["n_tasks"]])
    return found


def tables(document: dict[str, Any]) -> str:
    """The document's numbers as Markdown."""
    lines = []
    for kind in KINDS:
        lines += [
            f"Median LPs per CPU second, {kind} capacities (in brackets: the kernel is so many times as fast)",
            "",
        ]
        lines += ["| (N,M) | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
        lines += [_row(row) for row in document["sizes"] if row["capacities"] == kind]
        lines.append("")
    for row in filter(None, document["threads"]):
        one, two = row["lps_per_second"].values()
        lines.append(
            f"Kernel, {row['states']} states of ({row['n_agents']},{row['n_tasks']}): {one:,} LPs per second with one "
            f"thread, {two:,} with two ({row['two_times_as_fast_as_one']}x)"
        )
    layer = document["layer"]
    lines.append(
        f"Layer, forward + backward, {layer['states']} states of ({layer['n_agents']},{layer['n_tasks']}): CPU ms "
        + ", ".join(f"{label} {layer[label]['median']} (best {layer[label]['best']})" for label in LAYERS)
    )
    for row in (document["cvxpy"] or {"sizes": []})["sizes"]:
        lines.append(f"CVXPY ({row['n_agents']},{row['n_tasks']}): {row['rate']:,.0f} LPs per CPU second")
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    cells = [f"({row['n_agents']},{row['n_tasks']})"]
    for name in METHODS:
        if name not in row["methods"]:
            cells.append("-")
            continue
        times = row["kernel_times_as_fast_as"].get(name)
        cells.append(f"{row['methods'][name]['median']:,.0f}" + ("" if times is None else f" ({times:,.0f}x)"))
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
