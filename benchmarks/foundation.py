"""LPMARL on constrained navigation over seeds: trains, evaluates, and writes the CSV files of results/published.

    python benchmarks/foundation.py [SET ...] [--jobs 2]      # without a set: the four that the README shows

Finished runs are not repeated: remove ``results/foundation`` to start again. Sets: see ``SETS``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("results/foundation")
PUBLISHED = ROOT / "results" / "published" / "foundation"
CURVE = ("success", "agreement", "distance_ratio", "steps_to_success", "return")
CROWDED = ("env_args.agent_radius=0.15", "env_args.occupancy_radius=0.3")
POLICIES = ("lp", "random_feasible", "lp_distance")


@dataclass(frozen=True)
class Set:
    """One setting: overrides of the default job, seeds, and whether its policies are compared, each solved once."""

    overrides: tuple[str, ...]
    seeds: range
    compared_episodes: int = 0


def size(n_landmarks: int, n_agents: int) -> tuple[str, str]:
    """Overrides for M landmarks and N agents."""
    return f"env_args.n_landmarks={n_landmarks}", f"env_args.n_agents={n_agents}"


SETS = {
    "m3_n5": Set(size(3, 5), range(1, 11)),
    "m5_n7": Set(size(5, 7), range(1, 6)),
    "crowded_m5_n7": Set((*size(5, 7), *CROWDED), range(1, 6), compared_episodes=2000),
    "crowded_m10_n10": Set((*size(10, 10), *CROWDED), range(1, 6), compared_episodes=2000),
    # One choice of docs/decisions/008 to 010 changed at a time.
    "ablation_policy_gradient": Set((*size(3, 5), "low_actor=policy_gradient"), range(1, 4)),
    "ablation_double_q": Set((*size(3, 5), "low_target=double_q"), range(1, 4)),
    "ablation_terminal_success": Set((*size(3, 5), "bootstrap_success=false"), range(1, 4)),
    "ablation_small_noise": Set((*size(5, 7), "score_noise_start=0.05", "score_noise_finish=0.05"), range(1, 4)),
    "ablation_hold_all": Set((*size(5, 7), "exploration_hold=1"), range(1, 4)),
}


def run(label: str, overrides: Iterable[str]) -> Path:
    """Runs the program unless a finished run of that label exists; returns the run's folder."""
    done = sorted((ROOT / RUNS / "sacred").glob(f"*/lpmarl_{label}/*/summary.json"))
    if done:
        return done[-1].parent
    command = [sys.executable, "src/main.py", "with", f"local_results_path={RUNS}", f"label={label}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stderr[-2000:]}")
    return ROOT / finished.stdout.strip().splitlines()[-1]


def one_seed(name: str, seed: int) -> dict[str, Any]:
    """Trains one seed and, in a compared set, evaluates each high-level policy on the same episodes, solved once."""
    setting = SETS[name]
    overrides = (*setting.overrides, f"seed={seed}")
    folder = run(f"{name}_seed{seed}", overrides)
    found: dict[str, Any] = {"seed": seed, "folder": folder, "summary": read(folder / "summary.json")}
    if setting.compared_episodes:
        checkpoint = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
        once = ("evaluate=true", "redecide=start", f"final_nepisode={setting.compared_episodes}")
        for policy in POLICIES:
            label = f"{name}_seed{seed}_{policy}_once"
            extra = (*once, f"high_policy={policy}", f"checkpoint_path={checkpoint.relative_to(ROOT)}")
            found[policy] = read(run(label, (*overrides, *extra)) / "summary.json")["test"]
    return found


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def curve_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The test curve of one seed."""
    info = read(found["folder"] / "info.json")
    columns = {key: dict(zip(info[f"test_{key}_mean_T"], info[f"test_{key}_mean"], strict=True)) for key in CURVE}
    seconds = dict(zip(info["cpu_seconds_T"], info["cpu_seconds"], strict=True))
    return [
        {"seed": found["seed"], "env_steps": t, "cpu_seconds": round(seconds[t], 2)}
        | {key: column.get(t, "") for key, column in columns.items()}
        for t in sorted(seconds)
    ]


def final_row(found: dict[str, Any], curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The final evaluation of one seed and when 95 % was first passed."""
    summary = found["summary"]
    first = next((row for row in curve if row["success"] != "" and row["success"] >= 0.95), None)
    row = {"seed": found["seed"], "commit": summary["commit"], "dirty": summary["dirty"]}
    row |= {key: summary[key] for key in ("env_steps", "updates", "cpu_seconds", "test_episodes")}
    row |= {key: value for key, value in summary["test"].items() if not isinstance(value, str)}
    row |= {
        "env_steps_to_95": first["env_steps"] if first else "",
        "cpu_seconds_to_95": first["cpu_seconds"] if first else "",
    }
    for policy in POLICIES:
        if policy in found:
            row[f"once_{policy}_success"] = found[policy]["success"]
            row[f"once_{policy}_steps"] = found[policy]["steps_to_success"]
    return row


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of the same keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def describe(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds and the worst seed; for a compared set the paired difference to random_feasible."""
    mean = {key: statistics.fmean(row[key] for row in rows) for key in ("success", "agreement", "distance_ratio")}
    seconds = [row["cpu_seconds_to_95"] for row in rows if row["cpu_seconds_to_95"] != ""]
    found: dict[str, Any] = {
        "set": name,
        "seeds": len(rows),
        "mean": {key: round(value, 4) for key, value in mean.items()},
        "worst_success": min(row["success"] for row in rows),
        "seeds_that_passed_95": len(seconds),
        "median_cpu_seconds_to_95": round(statistics.median(seconds), 1) if seconds else None,
    }
    if SETS[name].compared_episodes:
        gaps = [row["once_lp_success"] - row["once_random_feasible_success"] for row in rows]
        found["solved_once"] = {
            policy: round(statistics.fmean(row[f"once_{policy}_success"] for row in rows), 4) for policy in POLICIES
        } | {
            "gap": round(statistics.fmean(gaps), 4),
            "standard_error": round(statistics.stdev(gaps) / len(gaps) ** 0.5, 4),
            "gaps": [round(gap, 4) for gap in gaps],
        }
    return found


def main() -> None:
    """Runs the sets and writes their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    main_sets = [name for name in SETS if not name.startswith("ablation_")]
    parser.add_argument("sets", nargs="*", default=main_sets, help=f"of {', '.join(SETS)}")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    jobs = [(name, seed) for name in arguments.sets for seed in SETS[name].seeds]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: one_seed(*job), jobs))
    for name in arguments.sets:
        found = [result for (set_name, _), result in zip(jobs, results, strict=True) if set_name == name]
        curves = [curve_rows(result) for result in found]
        finals = [final_row(result, curve) for result, curve in zip(found, curves, strict=True)]
        write_csv(PUBLISHED / f"{name}_curves.csv", [row for curve in curves for row in curve])
        write_csv(PUBLISHED / f"{name}_final.csv", finals)
        summary = describe(name, finals) | {
            "command": f"python benchmarks/foundation.py {name}",
            "overrides": SETS[name].overrides,
            "commit": sorted({row["commit"] for row in finals}),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        }
        (PUBLISHED / f"{name}.json").write_text(json.dumps(summary, indent=2) + "\n")
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
