"""Measures the memory of SEAC's training against the number of agents, whose pairs it learns from.

    python benchmarks/speed/seac_memory.py FOLDER [--quick]

A process for each map of ``skirmish``. ``kept_mib``: what autograd keeps for the backward pass of one gradient step,
the same on every machine. ``peak_mib``: the largest resident set of the process after three updates, PyTorch included.
Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.speed.throughput import machine  # noqa: E402

from components.config import load_config  # noqa: E402
from components.files import write_json_atomic  # noqa: E402
from controllers.base import Clock  # noqa: E402
from learners.seac_learner import SeacLearner  # noqa: E402
from parts import build  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

MAPS = ("3m", "5m_vs_6m", "8m", "10m_vs_11m", "25m", "27m_vs_30m")
QUICK_MAPS = MAPS[:2]
UPDATES = 3
MIB = 2.0**20


def main(argv: Sequence[str]) -> int:
    """Writes ``seac_memory.json`` and ``.md`` and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="two maps, a few seconds")
    given = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in QUICK_MAPS if given.quick else MAPS:
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (name,)))
    given.folder.mkdir(parents=True, exist_ok=True)
    document = {"unit": "MiB", "updates": UPDATES, "maps": rows, "machine": machine(), **git_commit(ROOT)}
    write_json_atomic(given.folder / "seac_memory.json", document)
    (given.folder / "seac_memory.md").write_text(table(rows))
    print(table(rows))
    return 0


def measure(name: str) -> dict[str, Any]:
    """Trains for some updates on a map."""
    torch.set_num_threads(1)
    parts = build(load_config("seac", "skirmish", [f"env_args.map_name={name}", "test_nepisode=1", "final_nepisode=1"]))
    learner = cast("SeacLearner", parts.learner)
    largest, kept = 0, {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    learn = learner.loss

    def measured(part: Any) -> Any:
        nonlocal largest
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = learn(part)
        largest = max(largest, sum(kept.values()))
        return found

    learner.loss = measured  # type: ignore[method-assign]
    steps = episodes = 0
    for _ in range(UPDATES):
        played = parts.train.collect(Clock(steps, episodes, 10**6))
        steps, episodes = steps + played.env_steps, episodes + len(played.returns)
        parts.buffer.insert(played.batch)
        learner.update(parts.buffer, Clock(steps, episodes, 10**6))
    n = parts.train.envs.info.n_agents
    parts.close()
    return {"map": name, "n_agents": n, "kept_mib": round(largest / MIB, 2), "peak_mib": round(peak_mib())}


def peak_mib() -> float:
    """The largest resident set so far. Not ``getrusage``: there a new process begins with its parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row per map."""
    lines = ["| map | N | kept for one gradient step, MiB | peak memory of the process, MiB |", "|---|---|---|---|"]
    lines += [f"| {row['map']} | {row['n_agents']} | {row['kept_mib']} | {row['peak_mib']} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
