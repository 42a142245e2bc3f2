"""Measures one high-level decision of LPMARL for one state, from 10 agents to 1,000: network and LP apart.

    python benchmarks/speed/decision_time.py FOLDER [--run RUN] [--quick]

Times are milliseconds of CPU of this process, one thread, median over repeated decisions of states of constrained
navigation at reset. ``network``: graph, messages and scores. ``lp``: from the scores to the assignment. ``act``: the
whole step of the controller that makes a decision, the low level's actions included. ``--run`` plays a trained network,
whose scores make another LP than an untrained one's. ``peak_mib`` is the largest resident set of the process so far:
sizes are measured in ascending order.

Shape legend: N agents, M tasks.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.speed.throughput import machine  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from commands.trained import load_trained  # noqa: E402
from components.config import load_config  # noqa: E402
from components.episode_buffer import EpisodeBatch  # noqa: E402
from components.files import write_json_atomic  # noqa: E402
from controllers.base import Clock  # noqa: E402
from controllers.lpmarl_controller import LpmarlController  # noqa: E402
from controllers.task_structure import Observed  # noqa: E402
from modules.assignment import make_problem, solve  # noqa: E402
from modules.graph import build_graph  # noqa: E402
from parts import Parts, build  # noqa: E402
from reports.plots import COLORS, save_figure  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

SIZES = ((10, 5), (20, 10), (50, 25), (100, 50), (200, 100), (500, 250), (1000, 500))
QUICK_SIZES = SIZES[:2]
PARTS = ("network", "lp", "act")
START = Clock(0, 0, 1)


def main(argv: Sequence[str]) -> int:
    """Writes ``decision_time.json``, ``.md`` and ``.png`` and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--run", type=Path, help="a trained run of LPMARL; its network is played at all sizes")
    parser.add_argument("--quick", action="store_true", help="two sizes, a few seconds")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    load_before = os.getloadavg()
    rows = [measure(n, m, given.run, given.quick) for n, m in (QUICK_SIZES if given.quick else SIZES)]
    document = {
        "unit": "milliseconds of CPU time for one decision of one state",
        "network": "trained" if given.run else "untrained",
        "sizes": rows,
        "growth_exponent_of_pairs": {part: exponent(rows, part) for part in PARTS},
        "machine": {**machine(), "load_average_before": load_before, "load_average_after": os.getloadavg()},
        **git_commit(ROOT),
    }
    given.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(given.folder / "decision_time.json", document)
    (given.folder / "decision_time.md").write_text(table(rows))
    plot(rows, given.folder / "decision_time.png")
    print(table(rows))
    return 0


def measure(n: int, m: int, run: Path | None, quick: bool) -> dict[str, Any]:
    """Median CPU milliseconds of each part at one size."""
    parts = _parts(n, m, run)
    controller, envs = cast("LpmarlController", parts.controller), parts.test.envs
    envs.reset()
    batch = EpisodeBatch.zeros(parts.test.fields, 1, 2, envs.info.n_actions)
    for name, value in envs.observation.items():
        batch.data[name][:, 0] = torch.from_numpy(np.array(value))
    seen = Observed(*(batch[name][:, 0] for name in Observed._fields))
    masks = seen.agent_alive.numpy(), seen.task_alive.numpy()
    with torch.no_grad():
        scores = controller.agent.scores(build_graph(*seen[:4])).double().numpy()
    capacity = seen.capacity.numpy()
    repeats = 2 if quick else max(5, min(200, 200_000 // (n * m)))

    def network() -> None:
        with torch.no_grad():
            controller.agent.scores(build_graph(*seen[:4]))

    def lp() -> None:
        solve(make_problem(scores, capacity, *masks), controller.options.assignment_solver)

    def act() -> None:
        controller.begin_episodes(1)
        controller.act(batch, 0, slice(None), START, test_mode=True)

    found = {name: median_ms(work, repeats) for name, work in zip(PARTS, (network, lp, act), strict=True)}
    parts.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"n_agents": n, "n_tasks": m, **found, "peak_mib": round(peak), "repeats": repeats}


def _parts(n: int, m: int, run: Path | None) -> Parts:
    sizes = [f"env_args.n_agents={n}", f"env_args.n_landmarks={m}"]
    small = ["batch_size_run=1", "test_nepisode=1", "final_nepisode=1", "buffer_size=32", "env_args.episode_limit=2"]
    if run is None:
        return build(load_config("lpmarl", "constrained_navigation", (*sizes, *small)))
    fixed = ["env_args.min_agents=null", "env_args.min_landmarks=null", "env_args.capacities=null"]
    return load_trained(run, [*fixed, *sizes, *small]).parts


def median_ms(work: Callable[[], None], repeats: int) -> float:
    """Median CPU milliseconds of a call, after one that loads what is compiled."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(1000.0 * (time.process_time() - start))
    return round(float(np.median(times)), 4)


def exponent(rows: Sequence[dict[str, Any]], part: str) -> float:
    """Slope of log time against log(N M) over the larger half of the sizes."""
    larger = rows[len(rows) // 2 :] if len(rows) > 3 else rows
    pairs = np.log([row["n_agents"] * row["n_tasks"] for row in larger])
    return round(float(np.polyfit(pairs, np.log([row[part] for row in larger]), 1)[0]), 3)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| (N, M) | network, ms | LP, ms | whole decision, ms | peak memory, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        times = " | ".join(f"{row[part]:.3g}" for part in PARTS)
        lines.append(f"| ({row['n_agents']}, {row['n_tasks']}) | {times} | {row['peak_mib']} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Times against the number of pairs, both logarithmic."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    pairs = [row["n_agents"] * row["n_tasks"] for row in rows]
    titles = {"network": "network (graph and scores)", "lp": "LP", "act": "whole decision"}
    for part, color in zip(PARTS, COLORS, strict=False):
        panel.plot(pairs, [row[part] for row in rows], marker="o", color=color, label=titles[part])
    panel.set(xscale="log", yscale="log", xlabel="agents × tasks", ylabel="CPU ms for one state, one thread")
    panel.set_xticks(
        pairs, [f"({row['n_agents']},{row['n_tasks']})" for row in rows], rotation=45, ha="right", fontsize=8
    )
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
