"""Small runs of every shipped algorithm, and the check that one goes on from its checkpoint as if never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.small_runs import EARLY, fingerprint, play, small_parts, start_clock

from components.checkpoint import load_checkpoint, save_checkpoint
from components.config import load_config
from components.config_layers import CONFIG_ROOT
from parts import Parts

ALGORITHMS = sorted(path.stem for path in (CONFIG_ROOT / "algs").glob("*.yaml"))
# The environment on which each algorithm is tried; episodes of different lengths, small.
ENV = "constrained_navigation"
SHORT = ("env_args.episode_limit=12", "env_args.occupancy_radius=0.8")


@contextmanager
def run(algorithm: str, *overrides: str) -> Iterator[Parts]:
    learner = load_config(algorithm, ENV, overrides).run.learner
    parts = small_parts(algorithm, ENV, *SHORT, *EARLY.get(str(learner), ()), *overrides)
    try:
        yield parts
    finally:
        parts.close()


def everything(parts: Parts) -> str:
    return fingerprint(parts.state_dict(with_buffer=True))


def learned(parts: Parts) -> str:
    return fingerprint({"controller": parts.controller.state_dict(), "learner": parts.learner.state_dict()})


def resumes_exactly(folder: Path, algorithm: str, *overrides: str) -> str:
    """Saves, goes on, and does so again from the checkpoint; returns the fingerprint of what was learned."""
    with run(algorithm, *overrides) as parts:
        clock, _ = play(parts, start_clock(), 3)
        saved = clock
        save_checkpoint(folder / "checkpoint", parts.state_dict(with_buffer=True), {"env_steps": clock.env_steps})
        clock, metrics = play(parts, clock, 3)
        expected, result = everything(parts), learned(parts)
    # Another seed: nothing may come from the fresh start.
    with run(algorithm, "seed=77", *overrides) as fresh:
        fresh.load_state_dict(load_checkpoint(folder / "checkpoint").state)
        restored, again = play(fresh, saved, 3)
        assert restored == clock
        assert again == metrics
        assert any(m is not None for m in again)
        assert everything(fresh) == expected
    return result
