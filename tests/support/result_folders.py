"""Folders as finished, running and broken runs leave them, without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = {
    "seed": 1,
    "lr": 0.0005,
    "t_max": 20_000,
    "test_interval": 10_000,
    "test_nepisode": 100,
    "final_nepisode": 1000,
    "checkpoint_path": "",
    "evaluate": False,
    "label": "",
}
COMMIT = {"commit": "a" * 40, "dirty": False, "env_commit": "e" * 40, "env_dirty": False}

Curve = Sequence[tuple[int, float | None]]


def write_run(
    results: Path,
    name: str = "qmix",
    env: str = "navigation",
    *,
    status: str = "COMPLETED",
    final: Mapping[str, float | None] | None = None,
    curves: Mapping[str, Curve] | None = None,
    summary: Mapping[str, Any] | None = None,
    commit: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """One run's folder, with the next free number.

    Args:
        results: the results folder.
        name: the algorithm.
        env: the environment.
        status: as in run.json.
        final: metric -> value of the final evaluation; ``None`` stands for NaN.
        curves: metric -> test curve; of the metrics of ``final`` alone where absent.
        summary: changes of summary.json.
        commit: changes of the recorded commit.
        config: changes of the configuration, ``env_args`` included.
    """
    values = CONFIG | {"name": name, "env": env, "env_args": {}} | config
    parent = results / "sacred" / env / "_".join(filter(None, (name, values["label"])))
    folder = parent / str(len(list(parent.glob("*"))) + 1)
    folder.mkdir(parents=True)
    final = {"success": 0.5} if final is None else final
    curves = (
        {metric: [(0, 0.0), (values["t_max"], value)] for metric, value in final.items()} if curves is None else curves
    )
    lines = [(f"test_{metric}_mean", t, value) for metric, curve in curves.items() for t, value in curve]
    lines += [(f"final_{metric}_mean", values["t_max"], value) for metric, value in final.items()]
    _write(folder / "config.json", values)
    _write(folder / "run.json", _run_json(status, int(folder.name), COMMIT | dict(commit or {})))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"key": key, "t": t, "value": value}) + "\n" for key, t, value in lines)
    )
    if status == "COMPLETED":
        _write(folder / "summary.json", {"env_steps": values["t_max"], "updates": 100} | dict(summary or {}))
    return folder


def write_seeds(results: Path, values: Sequence[float | None], metric: str = "success", **options: Any) -> list[Path]:
    """One finished run for each value, with seeds from 1."""
    return [
        write_run(results, seed=seed, final={metric: value}, **options) for seed, value in enumerate(values, start=1)
    ]


def _run_json(status: str, number: int, commit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": status,
        "start_time": f"2026-01-01T00:{number // 60:02}:{number % 60:02}",
        "experiment": {"repositories": [commit]},
        "host": {"cpu": "a processor", "os": ["Linux", "6"], "python_version": "3.11.7"},
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
