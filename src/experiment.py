"""A run: the one training loop, evaluation, what is recorded, and how it is stopped and resumed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compat import install as install_tensorboard_logger
from components.checkpoint import Checkpoint, load_checkpoint, load_into, require_same, save_checkpoint
from components.checkpoint_folders import RESUME, drop_older, model_folder, resume_folder
from components.config import Config
from components.errors import UserError
from components.files import write_json_atomic
from components.random import global_rng_state, load_global_rng_state
from controllers.base import Clock
from parts import Parts, build
from runners.evaluation import TEST_KEYS, evaluate, mean_metrics
from utils.logging import Logger, get_logger, summary_writer_class
from utils.progress import Progress
from utils.run_record import git_commit, redact, run_folder
from utils.sacred_run import start_run
from utils.signals import StopRequested, StopSignals
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
    """

    env_steps: int
    episodes: int
    next_test: int
    next_log: int
    next_save: int
    trained: bool = False


@dataclass
class Session:
    """A run in this process: a new one, or one that goes on after an interruption."""

    config: Config
    parts: Parts
    position: Position
    earlier: Mapping[str, Any] = field(default_factory=dict)
    commit: dict[str, Any] = field(default_factory=lambda: git_commit(ROOT))
    # Set when the record is open.
    folder: Path = Path()
    logger: Logger = field(init=False)
    watch: Stopwatch = field(init=False)
    next_full: float = field(init=False)

    @property
    def clock(self) -> Clock:
        """What schedules go by."""
        return Clock(self.position.env_steps, self.position.episodes, self.config.run.t_max)


def run_experiment(config: Config) -> Path:
    """Runs a validated configuration, recorded by Sacred, and returns the run's folder.

    Whatever the user got wrong is found before anything is written.
    """
    parts = _build(config)
    try:
        session = Session(config, parts, _start(config, parts))
        run = config.run
        return _record(session, run_folder(Path(run.local_results_path), run.env, _folder_name(config)))
    finally:
        parts.close()


def resume_experiment(folder: Path, config: Config, checkpoint: Checkpoint | None) -> Path:
    """Continues the run in ``folder`` as if it had never stopped; returns ``folder``.

    Args:
        folder: the run's folder.
        config: what it recorded.
        checkpoint: its newest full state; ``None`` starts it from the beginning.

    Raises:
        UserError: the checkpoint is of another configuration, or another process writes the folder.
    """
    parts = _build(config)
    try:
        if checkpoint is None:
            # Nothing of the earlier session counts.
            session = Session(config, parts, _start(config, parts), {"metrics_bytes": 0})
        else:
            require_same(checkpoint.meta["config"], redact(config.values), sorted(config.values))
            parts.load_state_dict(checkpoint.state)
            session = Session(config, parts, Position(**checkpoint.state["position"]), checkpoint.state["session"])
        return _record(session, folder.parent, resume=folder.name)
    finally:
        parts.close()


def _build(config: Config) -> Parts:
    if config.run.use_tensorboard:
        summary_writer_class()
        install_tensorboard_logger()
    return build(config)


def _folder_name(config: Config) -> str:
    return "_".join(filter(None, (config.run.name, config.run.label)))


def _start(config: Config, parts: Parts) -> Position:
    """The beginning, or the state of the checkpoint that a new run starts from.

    ``evaluate`` takes the controller alone: its test episodes depend on the seed and the environment given now.
    """
    run, steps, episodes = config.run, 0, 0
    if run.checkpoint_path:
        checkpoint = load_checkpoint(Path(run.checkpoint_path))
        keys = ("algorithm", "env") if run.evaluate else ("algorithm", "env", "env_args")
        require_same(checkpoint.meta, _meta(config), keys)
        if run.evaluate:
            load_into(parts.controller, checkpoint.state["controller"], "controller")
        else:
            parts.load_state_dict(checkpoint.state)
        position = Position(**checkpoint.state["position"])
        steps, episodes = position.env_steps, position.episodes
    return Position(steps, episodes, steps, steps, steps + run.save_model_interval, trained=run.evaluate)


def _record(session: Session, experiment: Path, resume: str | None = None) -> Path:
    with StopSignals() as stop:
        folder = start_run(session.config.values, experiment, partial(_recorded, session, stop), ROOT, resume=resume)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    return folder


def _recorded(session: Session, stop: StopSignals, sacred: Any, folder: Path) -> Path:
    """What Sacred records: train, evaluate, save, summarize."""
    config, parts, earlier = session.config, session.parts, session.earlier
    session.folder, session.watch = folder, Stopwatch(earlier.get("seconds"))
    session.next_full = time.monotonic() + 60 * config.run.checkpoint_minutes
    if "random" in earlier:
        load_global_rng_state(earlier["random"])
    if not (folder / "config_sources.json").exists():
        write_json_atomic(folder / "config_sources.json", config.sources)
    write_json_atomic(folder / "seeds.json", {"train": parts.train.envs.seeds, "test": parts.test.envs.seeds})
    tensorboard = folder / "tensorboard" if config.run.use_tensorboard else None
    keep, steps = earlier.get("metrics_bytes"), session.position.env_steps
    with Logger(get_logger(), folder, sacred.info, tensorboard, keep, steps) as session.logger:
        try:
            if not session.position.trained:
                train(session, stop, sacred)
            spent = session.watch.state_dict()
            test = _evaluate(session, stop, config.run.final_nepisode) if config.run.final_nepisode else {}
        except StopRequested:
            get_logger().info("stopped; python src/main.py resume %s goes on", folder)
            raise
        _log(session, {f"final_{key}_mean": value for key, value in test.items()})
    write_json_atomic(folder / "summary.json", _summary(session, spent, test))
    return folder


def train(session: Session, stop: StopSignals, sacred: Any) -> None:
    """Collect, store, update, and now and then evaluate, log and save.

    At the head of the loop nothing is half done: there, and only there, the full state is saved and signals answered.
    """
    run, parts, position = session.config.run, session.parts, session.position
    with Progress(run.t_max, session.logger.console_logger, start=position.env_steps) as progress:
        while position.env_steps < run.t_max:
            sacred.result = position.env_steps
            _safe_point(session, stop)
            if run.test_nepisode and position.env_steps >= position.next_test:
                progress.update(position.env_steps, **_test(session, stop))
                position.next_test += run.test_interval
            episodes = parts.train.collect(session.clock)
            position.env_steps += episodes.env_steps
            position.episodes += len(episodes.returns)
            parts.buffer.insert(episodes.batch)
            metrics = parts.learner.update(parts.buffer, session.clock)
            if metrics and position.env_steps >= position.next_log:
                position.next_log = position.env_steps + run.log_interval
                played = mean_metrics({"return": episodes.returns, **episodes.metrics})
                _log(session, {f"{name}_mean": value for name, value in played.items()} | metrics)
            if run.save_model_interval and position.env_steps >= position.next_save:
                position.next_save += run.save_model_interval
                _save_model(session)
            progress.update(position.env_steps)
        _safe_point(session, stop)
        if run.test_nepisode:
            progress.update(position.env_steps, **_test(session, stop))
    if run.save_model:
        _save_model(session)
    position.trained = True


def _safe_point(session: Session, stop: StopSignals) -> None:
    minutes = session.config.run.checkpoint_minutes
    if stop.requested is not None or (minutes and time.monotonic() >= session.next_full):
        _save_full(session)
        session.next_full = time.monotonic() + 60 * minutes
    stop.check()


def _test(session: Session, stop: StopSignals) -> dict[str, float]:
    found = _evaluate(session, stop, session.config.run.test_nepisode)
    cpu = {"cpu_seconds": session.watch.process, "episode": float(session.position.episodes)}
    _log(session, {f"test_{name}_mean": value for name, value in found.items()} | cpu)
    return {name: found[name] for name in ("success", "return") if name in found}


def _evaluate(session: Session, stop: StopSignals, n_episodes: int) -> dict[str, float]:
    """Greedy episodes; where a signal ends them halfway, the state from before them is saved."""
    parts = session.parts
    envs, controller = parts.test.envs.state_dict(), parts.controller.state_dict()
    try:
        return evaluate(parts.test, session.clock, n_episodes, stop.check)
    except StopRequested:
        parts.test.envs.load_state_dict(envs)
        parts.controller.load_state_dict(controller)
        _save_full(session)
        raise


def _log(session: Session, values: Mapping[str, float]) -> None:
    for key, value in values.items():
        session.logger.log_stat(key, value, session.position.env_steps)


def _save_model(session: Session) -> None:
    folder = model_folder(session.folder, session.position.env_steps)
    save_checkpoint(folder, _state(session, session.config.run.save_buffer), _manifest(session))


def _save_full(session: Session) -> None:
    """Saves everything for an exact resume. A disk that refuses does not end the run: the last full state stays."""
    try:
        state = _state(session, with_buffer=True)
        state["session"] = {
            "metrics_bytes": session.logger.sync(),
            "seconds": session.watch.state_dict(),
            "random": global_rng_state(),
        }
        about = _manifest(session) | {"metrics_bytes": state["session"]["metrics_bytes"]}
        save_checkpoint(resume_folder(session.folder, session.position.env_steps), state, about)
    except UserError as error:
        get_logger().warning("%s; the run can be resumed from the full state before it", error)
    else:
        drop_older(session.folder)


def _state(session: Session, with_buffer: bool) -> dict[str, Any]:
    return session.parts.state_dict(with_buffer) | {"position": asdict(session.position)}


def _manifest(session: Session) -> dict[str, Any]:
    return _meta(session.config) | session.commit | {"env_steps": session.position.env_steps}


def _meta(config: Config) -> dict[str, Any]:
    run = config.run
    about = {"algorithm": run.name, "env": run.env, "env_args": redact(run.env_args), "seed": run.seed}
    return about | {"config": redact(config.values)}


def _summary(session: Session, spent: Mapping[str, float], test: Mapping[str, float]) -> dict[str, Any]:
    run, steps = session.config.run, session.position.env_steps
    return {
        "algorithm": run.name,
        "env": run.env,
        "env_args": redact(run.env_args),
        "seed": run.seed,
        **session.commit,
        "env_steps": steps,
        "updates": session.parts.learner.updates,
        "wall_seconds": round(spent["wall"], 3),
        "cpu_seconds": round(spent["cpu"], 3),
        "env_steps_per_second": round(steps / max(spent["wall"], 1e-9), 1),
        "device": str(session.parts.device),
        "test_episodes": run.final_nepisode,
        "test": dict.fromkeys(TEST_KEYS) | dict(test),
    }
