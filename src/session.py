"""A run in this process: where it is, what it logs, and how its state is saved for an exact resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.checkpoint import save_checkpoint
from components.checkpoint_folders import drop_others, model_folder, resume_folder
from components.config import Config
from components.errors import UserError
from components.global_random import global_rng_state
from controllers.base import Clock
from parts import Parts
from utils.logging import Logger, get_logger
from utils.run_record import git_commit, redact
from utils.signals import StopSignals
from utils.stopwatch import Stopwatch

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Position:
    """Where a run is.

    Attributes:
        env_steps: environment steps so far.
        episodes: training episodes so far.
        next_test: environment steps from which the next evaluation is due.
        next_log: the same of training metrics.
        next_save: the same of models.
        trained: whether training and its last evaluation are over.
        dropped: episodes that were lost in training (``envs.base.DROPPED``).
    """

    env_steps: int
    episodes: int
    next_test: int
    next_log: int
    next_save: int
    trained: bool = False
    dropped: int = 0


@dataclass
class Session:
    """A new run, or one that goes on after an interruption.

    Attributes:
        config: of the run.
        parts: what it is made of.
        stop: the signals that came.
        position: where it is.
        earlier: what :meth:`save_full` kept about the sessions before; empty in a new run.
        commit: of the code.
        folder: the run's folder; this and what follows are set when the record is open.
        logger: the run's metrics.
        watch: seconds over all sessions.
    """

    config: Config
    parts: Parts
    stop: StopSignals
    position: Position
    earlier: Mapping[str, Any] = field(default_factory=dict)
    commit: Mapping[str, Any] = field(default_factory=lambda: git_commit(ROOT))
    folder: Path = Path()
    logger: Logger = field(init=False)
    watch: Stopwatch = field(init=False)
    _next_full: float = field(init=False)

    @property
    def clock(self) -> Clock:
        """What schedules go by."""
        return Clock(self.position.env_steps, self.position.episodes, self.config.run.t_max)

    def begin(self, folder: Path, logger: Logger) -> None:
        """The record is open."""
        self.folder, self.logger = folder, logger
        self.watch = Stopwatch(self.earlier.get("seconds"))
        self._next_full = self._full_state_due()

    def log(self, values: Mapping[str, float]) -> None:
        """Logs metrics at the present environment step."""
        for key, value in values.items():
            self.logger.log_stat(key, value, self.position.env_steps)

    def safe_point(self) -> None:
        """Where nothing is half done: saves the full state when it is time or a signal came, and answers the signal.

        Raises:
            StopRequested: a signal came.
        """
        minutes = self.config.run.checkpoint_minutes
        if self.stop.requested is not None or (minutes and time.monotonic() >= self._next_full):
            self.save_full()
            self._next_full = self._full_state_due()
        self.stop.check()

    def save_model(self) -> None:
        """Saves the networks and all small state, for evaluation and for new runs that start from it."""
        folder = model_folder(self.folder, self.position.env_steps)
        save_checkpoint(folder, self.state(self.config.run.save_buffer), self.manifest())

    def save_full(self) -> None:
        """Saves everything for an exact resume. A disk that refuses does not end the run: the last full state stays."""
        try:
            written = self.logger.sync()
            sessions = {
                "metrics_bytes": written,
                "seconds": self.watch.state_dict(),
                "random": global_rng_state(),
            }
            state = self.state(with_buffer=True) | {"session": sessions}
            folder = resume_folder(self.folder, self.position.env_steps)
            save_checkpoint(folder, state, self.manifest() | {"metrics_bytes": written})
        except UserError as error:
            get_logger().warning("%s; the run can be resumed from the full state before it", error)
        else:
            drop_others(self.folder, self.position.env_steps)

    def state(self, with_buffer: bool) -> dict[str, Any]:
        """What a checkpoint holds."""
        return self.parts.state_dict(with_buffer) | {"position": asdict(self.position)}

    def manifest(self) -> dict[str, Any]:
        """What a checkpoint says about itself."""
        return {
            **about(self.config),
            **self.commit,
            "config": redact(self.config.values),
            "env_version": self.parts.train.envs.info.version,
            "env_steps": self.position.env_steps,
        }

    def _full_state_due(self) -> float:
        return time.monotonic() + 60 * self.config.run.checkpoint_minutes


def about(config: Config) -> dict[str, Any]:
    """What checkpoints and summaries say about the run."""
    run = config.run
    return {"algorithm": run.name, "env": run.env, "env_args": redact(run.env_args), "seed": run.seed}
