"""Trains every algorithm on the processor and on the GPU in one run; prints one JSON document of rates, a table beside.

``make bench-devices``, or ``python benchmarks/speed/devices.py``. Rates are environment steps per second
of wall time with one thread of the processor beside the GPU, without evaluation, logs and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.speed.throughput import COMMON, FIGHTS, machine, training_rounds  # noqa: E402

from components.config import load_config  # noqa: E402
from parts import Parts, build  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

_WIDE_NAVIGATION = (
    *("env_args.n_landmarks=3", "env_args.n_agents=3", "env_args.rewards=dense", "env_args.reach_reward=delta"),
    *("hidden_dim=256", "critic_hidden_dim=256", "batch_size=2048", "env_steps_per_update=100"),
)
# As their files have them on a fight of three; then bigger networks, batches and numbers of agents.
JOBS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    **FIGHTS,
    "lpmarl_on_8m": ("lpmarl", "skirmish", ("env_args.map_name=8m",)),
    "lpmarl_on_navigation": ("lpmarl", "constrained_navigation", ()),
    "maddpg_wide": ("maddpg", "navigation", _WIDE_NAVIGATION),
    "maac_wide": ("maac", "navigation", _WIDE_NAVIGATION),
    "mappo_wide": ("mappo", "skirmish", ("env_args.map_name=8m", "hidden_dim=256")),
    "qmix_gru_256": ("qmix", "skirmish", ("env_args.map_name=8m", "rnn_hidden_dim=256", "batch_size=128")),
    "lpmarl_40_agents": (
        "lpmarl",
        "constrained_navigation",
        ("env_args.n_landmarks=20", "env_args.n_agents=40", "batch_size_high=256", "batch_size_low=256"),
    ),
}
DEVICES = ("cpu", "cuda")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="wall seconds of each window")
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS), help="these jobs")
    parser.add_argument("--devices", nargs="*", choices=DEVICES, default=DEVICES)
    options = parser.parse_args(arguments)
    devices = [name for name in options.devices if name == "cpu" or torch.cuda.is_available()]
    if len(devices) < len(options.devices):
        print("PyTorch sees no CUDA device: only the processor is measured", file=sys.stderr)
    found = {}
    for job in options.only:
        found[job] = {device: measure(*JOBS[job], device, options.seconds) for device in devices}
        print(f"{job:22}", *(line(device, found[job][device]) for device in devices), file=sys.stderr, flush=True)
    document = {
        "unit": "environment steps per second",
        "training": found,
        "machine": {**machine(), "gpu": torch.cuda.get_device_name() if "cuda" in devices else None},
        "load_average": os.getloadavg(),
        **git_commit(ROOT),
    }
    json.dump(document, sys.stdout, indent=2)
    print()
    return 0


def line(device: str, found: dict[str, Any]) -> str:
    """One measurement for a person."""
    return f"{device:>5} {found['env_steps_per_second']:9,.0f} steps/s {found['ms_per_update']:8.2f} ms an update"


def measure(algorithm: str, env: str, overrides: tuple[str, ...], device: str, seconds: float) -> dict[str, Any]:
    """Rate and time of an update over one window, after the first updates."""
    words = [word for word in COMMON if not word.startswith("use_cuda")]
    config = load_config(algorithm, env, [*words, f"use_cuda={str(device == 'cuda').lower()}", *overrides])
    parts = build(config)
    spent = [0.0]
    parts.learner.update = clocked(parts.learner.update, spent)  # type: ignore[method-assign]
    rounds = training_rounds(parts, config.run.t_max)
    while parts.learner.updates < 3:
        next(rounds)
    spent[0], updates, steps = 0.0, parts.learner.updates, 0
    began = time.perf_counter()
    while (wall := time.perf_counter() - began) < seconds or parts.learner.updates == updates:
        steps += next(rounds)
    updates = parts.learner.updates - updates
    parts.close()
    return {
        "env_steps_per_second": round(steps / wall, 1),
        "updates": updates,
        "ms_per_update": round(1e3 * spent[0] / updates, 3),
        "parameters": parameters(parts),
    }


def clocked(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Adds the wall seconds of the calls to ``spent``; the GPU's work is waited for."""

    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        spent[0] += time.perf_counter() - began
        return result

    return run


def parameters(parts: Parts) -> int:
    """Numbers that acting depends on."""
    return sum(tensor.numel() for tensor in parts.controller.parameters())


if __name__ == "__main__":
    sys.exit(main())
