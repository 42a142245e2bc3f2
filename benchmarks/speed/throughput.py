"""Measures environment and training speed on one thread and prints one JSON document.

``make bench``, or ``PYTHONPATH=src python benchmarks/speed/throughput.py``. All rates are per second of CPU time of
this process; a window's rate is its environment steps over its CPU time.

Shape legend: B environments, N agents, M tasks, A actions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from components.config import load_config
from controllers.base import Clock
from envs.base import derive_seeds
from envs.vector import in_process
from parts import Parts, build
from utils.run_record import git_commit

ROOT = Path(__file__).resolve().parents[2]
EPISODE_LIMIT = 25
# (N, M) -> the environment of that size.
SIZES = {(3, 3): "navigation", (5, 3): "constrained_navigation"}
OBSERVED = ("obs", "avail_actions")
MAPS = ("3m", "8m", "3s_vs_5z")

# One test environment is the least that a run has; nothing is evaluated here.
COMMON = ("test_nepisode=1", "final_nepisode=1", "use_cuda=false", "torch_threads=1")
PLAIN = (
    f"env_args.episode_limit={EPISODE_LIMIT}",
    "batch_size_run=8",
    "batch_size=32",
    "episodes_per_update=8",
    "obs_last_action=false",
    "optimizer=adam",
)
JOBS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "lpmarl_3_landmarks_5_agents": ("lpmarl", "constrained_navigation", ()),
    "qmix_mlp": ("qmix", "navigation", (*PLAIN, "agent=mlp")),
    "qmix_gru": ("qmix", "navigation", (*PLAIN, "agent=gru")),
}
# As their files have them.
IN_FIGHTS = (
    *("lpmarl", "dec_lpmarl", "iql", "vdn", "qmix", "qplex", "maddpg", "maac"),
    *("mappo", "ippo", "seac", "hsd", "rode", "ldsa"),
)
FIGHTS: dict[str, tuple[str, str, tuple[str, ...]]] = {f"{name}_on_3m": (name, "skirmish", ()) for name in IN_FIGHTS}


@dataclass(frozen=True)
class Effort:
    """How long to measure: windows of that many CPU seconds each, for environments and for training; and which."""

    windows: int
    env_seconds: float
    train_seconds: float
    batch_sizes: tuple[int, ...]
    battle_sizes: tuple[int, ...]
    jobs: Mapping[str, tuple[str, str, tuple[str, ...]]]


FULL = Effort(
    windows=5,
    env_seconds=0.4,
    train_seconds=2.0,
    batch_sizes=(1, 32, 1024),
    battle_sizes=(1, 512),
    jobs={**JOBS, **FIGHTS},
)
QUICK = Effort(windows=2, env_seconds=0.02, train_seconds=0.1, batch_sizes=(1, 32), battle_sizes=(1, 8), jobs=JOBS)


def main() -> int:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it works, measures nothing")
    effort = QUICK if parser.parse_args().quick else FULL
    load_before = os.getloadavg()
    began = time.perf_counter()
    environments = [measure_env(n, m, batch_size, effort) for n, m in SIZES for batch_size in effort.batch_sizes]
    battles = [measure_skirmish(name, size, effort) for name in MAPS for size in effort.battle_sizes]
    reference = measure_mpe2(effort)
    training = {name: measure_training(name, *job, effort) for name, job in effort.jobs.items()}
    facts = {**machine(), "load_average_before": load_before, "load_average_after": os.getloadavg()}
    document = {
        "unit": "environment steps per CPU second",
        "windows": effort.windows,
        "environment": environments,
        "skirmish": battles,
        "mpe2": reference,
        "training": training,
        "machine": facts,
        **git_commit(ROOT),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }
    json.dump(document, sys.stdout, indent=2)
    print()
    return 0


def tell(text: str) -> None:
    """Says on standard error what is running."""
    print(text, file=sys.stderr, flush=True)


def rates(play: Callable[[], int], windows: int, seconds: float) -> dict[str, float]:
    """Best and median rate of windows of CPU time.

    Args:
        play: does a piece of work and returns its environment steps.
        windows: how many.
        seconds: CPU seconds of each, at least.
    """
    found = []
    for _ in range(windows):
        steps, began = 0, time.process_time()
        while (spent := time.process_time() - began) < seconds:
            steps += play()
        found.append(steps / spent)
    return {"best": round(max(found), 1), "median": round(median(found), 1)}


def measure_env(n_agents: int, n_tasks: int, batch_size: int, effort: Effort) -> dict[str, Any]:
    """Random play, observations included, with a reset every ``EPISODE_LIMIT`` steps."""
    name = SIZES[n_agents, n_tasks]
    tell(f"environment {name}, N={n_agents}, M={n_tasks}, B={batch_size}")
    config = load_config(
        "iql",
        name,
        [
            f"env_args.n_agents={n_agents}",
            f"env_args.n_landmarks={n_tasks}",
            f"env_args.episode_limit={EPISODE_LIMIT}",
        ],
    )
    envs = in_process(name, config.parts["env"], derive_seeds(0, 0, batch_size), OBSERVED)
    rng = np.random.default_rng(0)
    actions = rng.integers(envs.info.n_actions, size=(EPISODE_LIMIT, batch_size, n_agents))
    everyone = np.ones(batch_size, dtype=np.bool_)

    def episode() -> int:
        # All are stepped to the limit, also after a success: every step costs the same.
        envs.reset()
        for joint in actions:
            envs.step(joint, everyone)
        return EPISODE_LIMIT * batch_size

    episode()
    found = rates(episode, effort.windows, effort.env_seconds)
    envs.close()
    return {"env": name, "n_agents": n_agents, "n_tasks": n_tasks, "n_envs": batch_size, "fields": OBSERVED, **found}


def measure_skirmish(map_name: str, batch_size: int, effort: Effort) -> dict[str, Any]:
    """Random legal play to the end of every battle; choosing the actions is part of the time."""
    tell(f"environment skirmish, {map_name}, B={batch_size}")
    config = load_config("iql", "skirmish", [f"env_args.map_name={map_name}"])
    fields = (*OBSERVED, "state")
    envs = in_process("skirmish", config.parts["env"], derive_seeds(0, 0, batch_size), fields)
    rng = np.random.default_rng(0)

    def episode() -> int:
        envs.reset()
        active, steps = np.ones(batch_size, dtype=np.bool_), 0
        while active.any():
            mask = envs.observation["avail_actions"]
            result = envs.step((rng.random(mask.shape, dtype=np.float32) * mask).argmax(-1), active)
            steps += int(active.sum())
            active &= ~(result.terminated | result.truncated)
        return steps

    episode()
    found = rates(episode, effort.windows, effort.env_seconds)
    envs.close()
    return {"map": map_name, "n_envs": batch_size, "fields": fields, **found}


def measure_mpe2(effort: Effort) -> dict[str, Any] | None:
    """The same for one environment of mpe2's simple_spread (N = 3), or ``None`` where mpe2 is not installed."""
    try:
        from mpe2 import simple_spread_v3
    except ImportError:
        return None
    tell("environment simple_spread of mpe2")
    env = simple_spread_v3.parallel_env(N=3, max_cycles=EPISODE_LIMIT, continuous_actions=False)
    rng = np.random.default_rng(0)

    def episode() -> int:
        env.reset(seed=0)
        for joint in rng.integers(5, size=(EPISODE_LIMIT, 3)):
            env.step(dict(zip(env.agents, joint.tolist(), strict=True)))
        return EPISODE_LIMIT

    episode()
    found = rates(episode, effort.windows, effort.env_seconds)
    env.close()
    return {"env": "simple_spread", "n_agents": 3, "n_envs": 1, "version": installed("mpe2"), **found}


def measure_training(name: str, algorithm: str, env: str, overrides: tuple[str, ...], effort: Effort) -> dict[str, Any]:
    """Collect, store, update: the loop of ``experiment.train`` without evaluation, logs and checkpoints."""
    tell(f"training {name}")
    config = load_config(algorithm, env, [*COMMON, *overrides])
    parts = build(config)
    rounds = training_rounds(parts, config.run.t_max)
    while parts.learner.updates < 2:
        next(rounds)
    found = rates(lambda: next(rounds), effort.windows, effort.train_seconds)
    # The timers cost time themselves, so the shares come from a window of their own.
    shares = split(parts, rounds, effort.train_seconds)
    parts.close()
    return {
        "algorithm": algorithm,
        "env": env,
        "overrides": list(overrides),
        "n_envs": config.run.batch_size_run,
        **found,
        "split": shares,
    }


def training_rounds(parts: Parts, t_max: int) -> Iterator[int]:
    """Trains for ever; yields the environment steps of each round."""
    clock = Clock(0, 0, t_max)
    while True:
        episodes = parts.train.collect(clock)
        clock = Clock(clock.env_steps + episodes.env_steps, clock.episodes + len(episodes.returns), t_max)
        parts.buffer.insert(episodes.batch)
        parts.learner.update(parts.buffer, clock)
        yield episodes.env_steps


def split(parts: Parts, rounds: Iterator[int], seconds: float) -> dict[str, float]:
    """Share of the CPU time that each part takes; the rest is recording and the replay buffer."""
    spent: dict[str, float] = {}
    calls: dict[str, list[tuple[Any, str]]] = {
        "environment": [(parts.train.envs, "reset"), (parts.train.envs, "step")],
        "acting": [(parts.controller, "begin_episodes"), (parts.controller, "act")],
        "learning": [(parts.learner, "update")],
    }
    with timed(calls, spent):
        began = time.process_time()
        while (total := time.process_time() - began) < seconds:
            next(rounds)
    spent["rest"] = total - sum(spent.values())
    return {name: round(value / total, 4) for name, value in spent.items()}


@contextmanager
def timed(calls: Mapping[str, list[tuple[Any, str]]], spent: dict[str, float]) -> Iterator[None]:
    """Adds the CPU seconds of the named methods to ``spent``, under the name of their group."""
    for group, methods in calls.items():
        spent[group] = 0.0
        for owner, method in methods:
            # On the instance, in front of the class's method.
            setattr(owner, method, _timed(getattr(owner, method), group, spent))
    try:
        yield
    finally:
        for methods in calls.values():
            for owner, method in methods:
                delattr(owner, method)


def _timed(call: Callable[..., Any], group: str, spent: dict[str, float]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        result = call(*args, **kwargs)
        spent[group] += time.process_time() - began
        return result

    return run


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "numba": installed("numba"),
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "NUMBA_NUM_THREADS": os.environ.get("NUMBA_NUM_THREADS"),
    }


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """A package's version, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
