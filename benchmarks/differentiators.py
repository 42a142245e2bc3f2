"""Compares the differentiators of the assignment layer on two small learning tasks; prints JSON or Markdown tables.

    python benchmarks/differentiators.py                    # both tasks, every differentiator with its default options
    python benchmarks/differentiators.py --variants         # other settings, to see what the defaults hang on
    python benchmarks/differentiators.py --markdown
    python benchmarks/differentiators.py --join differentiators.json seeds.csv   # with LPMARL's runs in one table

Task ``scores``: the scores C themselves are learned from a fixed Q through the layer, J = sum z Q, loss -J. Each of
the 100 starts has its own Q and C, both standard normal; Adam, the same rate and number of steps for all. The options'
defaults were chosen on seed 0, so that other seeds are the fair comparison (default: 1). Reported:
share of starts whose LP(C) is optimal under Q at the end, and regret.

Task ``network``: a network (one hidden layer, sigmoid scores in [0, 1]) reads Q and learns to assign, on fresh random
states, 32 a step. Reported: regret on 1000 new states, mean and standard deviation over seeds.

``--join`` sets a former JSON output beside the runs of ``python src/main.py experiments differentiators`` (its
report has ``seeds.csv``): means over seeds of success, agreement with the assignment of least distance, regret
(distance of the assignments above the least, as a share of it) and CPU seconds of a run.

Regret: best value less achieved value, as a share of what random scores lose. CPU seconds are those of the process.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from modules.assignment import DIFFERENTIATORS, AssignmentLayer  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

# Agents, tasks, capacity of each task.
SIZES = {"(3,3)": (3, 3, [1] * 3), "(5,5)": (5, 5, [1] * 5), "(7,5)": (7, 5, [2] * 5)}
STARTS, STEPS, LEARNING_RATE = 100, 300, 0.05
NETWORK_SEEDS, NETWORK_STEPS, NETWORK_STATES, NETWORK_RATE, NEW_STATES = 4, 300, 32, 0.01, 1000

Setting = tuple[str, dict[str, Any]]

DEFAULTS: list[Setting] = [(name, {}) for name in DIFFERENTIATORS]
VARIANTS: list[Setting] = [
    *(("blackbox", {"lam": lam}) for lam in (1.0, 20.0)),
    *(("blackbox", {"tau": tau}) for tau in (0.5, 5.0, 20.0, 100.0)),
    *(("blackbox_two_sided", {"tau": tau}) for tau in (0.5, 20.0)),
    ("imle", {"samples": 1}),
    ("imle", {"tau": 2.0}),
    ("imle", {"noise": "sum_of_gamma"}),
    ("imle", {"forward": "mean"}),
    ("perturbed", {"forward": "exact"}),
    ("perturbed", {"samples": 16}),
    *(("perturbed", {"relative_sigma": sigma}) for sigma in (0.1, 0.25, 1.0)),
    ("score_function", {"pairs": 4}),
    *(("sinkhorn", {"epsilon": epsilon}) for epsilon in (0.1, 1.0)),
    *(("sinkhorn", {"relative_epsilon": epsilon}) for epsilon in (0.05, 0.25)),
    ("sinkhorn", {"forward": "soft"}),
    ("identity", {"project": "rows"}),
    ("identity", {"project": "rows_and_columns"}),
    ("identity", {"project": "nothing"}),
    ("fenchel_young", {"samples": 1}),
    *(("fenchel_young", {"relative_sigma": sigma}) for sigma in (0.1, 0.5)),
    ("spo_plus", {"lam": 1.0}),
    ("spo_plus", {"tau": 1.0}),
    ("qp", {"epsilon": 1.0}),
    *(("qp", {"relative_epsilon": epsilon}) for epsilon in (0.25, 0.5, 2.0)),
    ("qp", {"forward": "soft"}),
]


def regret(plan: Tensor, q: Tensor, capacity: list[int]) -> Tensor:
    """[B] share of what random scores lose on average."""
    exact = AssignmentLayer()
    generator = torch.Generator().manual_seed(12345)
    best = (exact(q, capacity) * q).sum((1, 2))
    random = torch.stack(
        [(exact(torch.rand(q.shape, generator=generator), capacity) * q).sum((1, 2)) for _ in range(8)]
    )
    return (best - (plan * q).sum((1, 2))) / (best - random.mean(0)).mean()


def learn_scores(name: str, options: dict[str, Any], size: str, optimizer: str, seed: int) -> dict[str, float]:
    """Task ``scores``."""
    n, m, capacity = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(STARTS, n, m, generator=generator)
    scores = torch.randn(STARTS, n, m, generator=generator).requires_grad_()
    layer = AssignmentLayer(name, seed=seed, **options)
    steps: torch.optim.Optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](
        [scores], lr=LEARNING_RATE
    )
    began = time.process_time()
    for _ in range(STEPS):
        loss = -(layer(scores, capacity) * q).sum()
        steps.zero_grad()
        loss.backward()
        steps.step()
    seconds = time.process_time() - began
    lost = regret(AssignmentLayer()(scores.detach(), capacity), q, capacity)
    return {
        "reached": float((lost < 1e-5).double().mean()),
        "regret": float(lost.mean()),
        "cpu_seconds": round(seconds, 2),
    }


def learn_network(name: str, options: dict[str, Any], size: str, seed: int) -> float:
    """Task ``network``: the regret on new states."""
    n, m, capacity = SIZES[size]
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(n * m, 64), nn.ReLU(), nn.Linear(64, n * m), nn.Sigmoid())
    generator = torch.Generator().manual_seed(seed)
    layer = AssignmentLayer(name, seed=seed, **options)
    optimizer = torch.optim.Adam(network.parameters(), lr=NETWORK_RATE)
    for _ in range(NETWORK_STEPS):
        q = torch.randn(NETWORK_STATES, n, m, generator=generator)
        z = layer(network(q.flatten(1)).view(-1, n, m), capacity)
        loss = -(z * q).sum() / NETWORK_STATES
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    q = torch.randn(NEW_STATES, n, m, generator=generator)
    with torch.no_grad():
        plan = AssignmentLayer()(network(q.flatten(1)).view(-1, n, m), capacity)
    return float(regret(plan, q, capacity).mean())


def compare(
    settings: list[Setting], sizes: list[str], tasks: list[str], optimizer: str, seed: int
) -> list[dict[str, Any]]:
    """One row for each setting."""
    learn_scores("blackbox", {}, sizes[0], optimizer, seed)  # loads what is compiled: not the first row's time
    rows = []
    for name, options in settings:
        row: dict[str, Any] = {"differentiator": name, "options": options}
        for size in sizes:
            found: dict[str, Any] = learn_scores(name, options, size, optimizer, seed) if "scores" in tasks else {}
            if "network" in tasks:
                began = time.process_time()
                seeds = range(NETWORK_SEEDS * seed, NETWORK_SEEDS * (seed + 1))
                losses = [learn_network(name, options, size, own) for own in seeds]
                found["network_regret"] = statistics.mean(losses)
                found["network_regret_std"] = statistics.stdev(losses)
                found["network_cpu_seconds"] = round((time.process_time() - began) / NETWORK_SEEDS, 2)
            row[size] = found
        rows.append(row)
        print(f"{name} {options}: {row[sizes[-1]]}", file=sys.stderr, flush=True)
    return rows


def markdown(rows: list[dict[str, Any]], sizes: list[str]) -> str:
    """One table of all rows."""
    columns = [
        ("reached", "reached", lambda x: f"{100 * x['reached']:.0f} %"),
        ("regret", "regret", lambda x: f"{100 * x['regret']:.1f} %"),
        ("cpu_seconds", "CPU s", lambda x: f"{x['cpu_seconds']:.1f}"),
        (
            "network_regret",
            "network regret",
            lambda x: f"{100 * x['network_regret']:.1f} ± {100 * x['network_regret_std']:.1f} %",
        ),
        ("network_cpu_seconds", "network CPU s", lambda x: f"{x['network_cpu_seconds']:.1f}"),
    ]
    shown = [(size, title, write) for size in sizes for key, title, write in columns if key in rows[0][size]]
    lines = [
        "| differentiator | " + " | ".join(f"{size} {title}" for size, title, _ in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for row in rows:
        options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
        label = f"{row['differentiator']} ({options})" if options else row["differentiator"]
        lines.append(f"| {label} | " + " | ".join(write(row[size]) for size, _, write in shown) + " |")
    return "\n".join(lines)


def joined(rows: list[dict[str, Any]], runs: list[dict[str, str]]) -> str:
    """One table of both comparisons, in the order of ``rows``."""
    sizes = [size for size in SIZES if size in rows[0]]
    lines = [
        "| differentiator | "
        + " | ".join(f"{size} reached, regret, CPU s" for size in sizes)
        + " | LPMARL success: mean (each seed) | agreement | regret | CPU s a run |",
        "|---" * (len(sizes) + 5) + "|",
    ]
    for row in rows:
        name = row["differentiator"]
        cells = [
            f"{100 * row[size]['reached']:.0f} %, {100 * row[size]['regret']:.1f} %, {row[size]['cpu_seconds']:.1f}"
            for size in sizes
        ]
        own = [run for run in runs if run["label"] == name]

        def values(column: str, own: list[dict[str, str]] = own) -> list[float]:
            return [float(run[column]) for run in own]

        if own:
            success = values("final_success_mean")
            each = ", ".join(f"{100 * value:.0f}" for value in success)
            cells += [
                f"{100 * statistics.mean(success):.0f} % ({each})",
                f"{statistics.mean(values('final_agreement_mean')):.2f}",
                f"{100 * (statistics.mean(values('final_distance_ratio_mean')) - 1):.0f} %",
                f"{statistics.mean(values('cpu_seconds')):.0f}",
            ]
        lines.append(f"| {name} | " + " | ".join(cells + ["-"] * (0 if own else 4)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(DIFFERENTIATORS), help="differentiators (default: all)")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--tasks", nargs="*", default=["scores", "network"], choices=["scores", "network"])
    parser.add_argument("--variants", action="store_true", help="other options instead of the defaults")
    parser.add_argument("--optimizer", default="adam", choices=["adam", "sgd"], help="of task 'scores'")
    parser.add_argument("--seed", type=int, default=1, help="of problems, starts and noise (default: 1)")
    parser.add_argument("--markdown", action="store_true", help="print a table, not JSON")
    parser.add_argument("--join", nargs=2, type=Path, metavar=("JSON", "SEEDS_CSV"), help="print both in one table")
    given = parser.parse_args()
    if given.join:
        small, large = given.join
        with large.open(newline="") as file:
            print(joined(json.loads(small.read_text())["rows"], list(csv.DictReader(file))))
        return
    torch.set_num_threads(1)
    settings = [setting for setting in (VARIANTS if given.variants else DEFAULTS) if setting[0] in given.only]
    rows = compare(settings, given.sizes, given.tasks, given.optimizer, given.seed)
    if given.markdown:
        print(markdown(rows, given.sizes))
        return
    print(
        json.dumps(
            {
                "command": " ".join(["python", "benchmarks/differentiators.py", *sys.argv[1:]]),
                "starts": STARTS,
                "steps": STEPS,
                "learning_rate": LEARNING_RATE,
                "optimizer": given.optimizer,
                "seed": given.seed,
                "rows": rows,
                "commit": git_commit(ROOT),
                "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
