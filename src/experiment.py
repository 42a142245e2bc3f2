"""A run from its configuration to its summary: the one training loop, evaluation, and resuming."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from compat import install as install_tensorboard_logger
from components.checkpoint import Checkpoint, load_into, require_same, save_checkpoint
from components.checkpoint_folders import RESUME, load_model
from components.config import Config
from components.errors import RunFailed, UserError
from components.files import write_json_atomic
from components.global_random import global_rng_state, load_global_rng_state
from learners.base import Metrics, NonFiniteUpdate
from parts import Parts, build
from replays import write_replay
from runners.evaluation import TEST_KEYS, evaluate, mean_metrics
from session import ROOT, Position, Session, about
from utils.logging import Logger, get_logger, summary_writer_class
from utils.progress import Progress
from utils.run_record import redact, run_folder
from utils.sacred_run import start_run
from utils.signals import StopRequested, StopSignals


def run_experiment(config: Config) -> Path:
    """Runs a validated configuration, recorded by Sacred, and returns the run's folder.

    Whatever the user got wrong is found before anything is written.
    """
    run, name = config.run, "_".join(filter(None, (config.run.name, config.run.label)))
    with _built(config) as (parts, stop):
        session = Session(config, parts, stop, _start(config, parts))
        return _record(session, run_folder(Path(run.local_results_path), run.env, name))


def resume_experiment(folder: Path, config: Config, checkpoint: Checkpoint | None) -> Path:
    """Continues the run in ``folder`` as if it had never stopped (but see ``EnvInfo.external``); returns ``folder``.

    Args:
        folder: the run's folder.
        config: what it recorded.
        checkpoint: its newest full state; ``None`` starts it from the beginning.

    Raises:
        UserError: the checkpoint is of another configuration, or another process writes the folder.
    """
    with _built(config) as (parts, stop):
        if checkpoint is None:
            session = Session(config, parts, stop, _start(config, parts), {"metrics_bytes": 0})
        else:
            saved = checkpoint.meta["config"]
            require_same(saved, redact(config.values), sorted(set(saved) & set(config.values)))
            # What is learned from two versions of an environment is the result of neither.
            played = {"env_version": parts.train.envs.info.version}
            require_same(played | checkpoint.meta, played, played)
            parts.load_state_dict(checkpoint.state)
            if parts.train.envs.info.external:
                get_logger().warning(
                    "a game of %s cannot be saved: the run goes on with new episodes, and does not end as if it had "
                    "never stopped",
                    config.run.env,
                )
            position = Position(**checkpoint.state["position"])
            session = Session(config, parts, stop, position, checkpoint.state["session"])
        return _record(session, folder.parent, folder.name)


@contextmanager
def _built(config: Config) -> Iterator[tuple[Parts, StopSignals]]:
    """The parts, and the signals that come while they exist."""
    if config.run.use_tensorboard:
        summary_writer_class()
        install_tensorboard_logger()
    with StopSignals() as stop:
        parts = build(config)
        try:
            yield parts, stop
        finally:
            parts.close()


def _start(config: Config, parts: Parts) -> Position:
    """The beginning, or where the checkpoint is that a new run starts from.

    ``evaluate`` takes the controller alone: its test episodes depend on the seed and the environment given now.
    """
    run, steps, episodes = config.run, 0, 0
    if run.checkpoint_path:
        _, checkpoint = load_model(Path(run.checkpoint_path), get_logger().warning)
        keys = ("algorithm", "env") if run.evaluate else ("algorithm", "env", "env_args")
        require_same(checkpoint.meta, about(config), keys)
        if run.evaluate:
            load_into(parts.controller, checkpoint.state["controller"], "controller")
        else:
            parts.start_from(checkpoint.state)
        steps, episodes = checkpoint.state["position"]["env_steps"], checkpoint.state["position"]["episodes"]
        if not run.evaluate and run.t_max <= steps:
            raise UserError(
                f"t_max = {run.t_max}: the checkpoint has {steps} env steps already, so that nothing would be "
                f"trained; use t_max > {steps}"
            )
    return Position(steps, episodes, steps, steps, steps + run.save_model_interval, trained=run.evaluate)


def _record(session: Session, experiment: Path, resume: str | None = None) -> Path:
    folder = start_run(session.config.values, experiment, partial(_recorded, session), ROOT, resume=resume)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    return folder


def _recorded(session: Session, sacred: Any, folder: Path) -> Path:
    """What Sacred records: train, evaluate, save, summarize."""
    config, parts, earlier = session.config, session.parts, session.earlier
    if "random" in earlier:
        load_global_rng_state(earlier["random"])
    if not (folder / "config_sources.json").exists():
        _write_record(folder / "seeds.json", {"train": parts.train.envs.seeds, "test": parts.test.envs.seeds})
        _write_record(folder / "config_sources.json", config.sources)
    tensorboard = folder / "tensorboard" if config.run.use_tensorboard else None
    keep, steps = earlier.get("metrics_bytes"), session.position.env_steps
    with Logger(get_logger(), folder, sacred.info, tensorboard, keep, steps) as logger:
        session.begin(folder, logger)
        try:
            if not session.position.trained:
                train(session, sacred)
            wall, cpu = session.watch.wall, session.watch.cpu
            test = _evaluate(session, config.run.final_nepisode) if config.run.final_nepisode else {}
        except StopRequested:
            get_logger().info("stopped; python src/main.py resume %s goes on", folder)
            raise
        session.log({f"final_{key}_mean": value for key, value in test.items()})
    summary = {
        **about(config),
        **session.commit,
        "env_version": parts.train.envs.info.version,
        "env_steps": session.position.env_steps,
        "updates": parts.learner.updates,
        "dropped_episodes": session.position.dropped,
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "env_steps_per_second": round(session.position.env_steps / max(wall, 1e-9), 1),
        "device": str(parts.device),
        "test_episodes": config.run.final_nepisode,
        "test": dict.fromkeys(TEST_KEYS) | test,
    }
    for lack in [] if config.run.evaluate else parts.learner.not_begun():
        played = f"{session.position.env_steps:,}"
        get_logger().warning("%s did not learn as it should: in %s env steps %s", config.run.learner, played, lack)
    _write_record(folder / "summary.json", summary)
    write_replay(folder, parts, session.clock, config)
    return folder


def _write_record(path: Path, value: Any) -> None:
    try:
        write_json_atomic(path, value)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error


def train(session: Session, sacred: Any) -> None:
    """Collect, store, update, and now and then evaluate, log and save."""
    run, parts, position = session.config.run, session.parts, session.position
    with Progress(run.t_max, session.logger.console_logger, start=position.env_steps) as progress:
        while position.env_steps < run.t_max:
            sacred.result = position.env_steps
            session.safe_point()
            if run.test_nepisode and position.env_steps >= position.next_test:
                progress.update(position.env_steps, **_test(session))
                position.next_test += run.test_interval
            episodes = parts.train.collect(session.clock)
            position.env_steps += episodes.env_steps
            position.episodes += len(episodes.returns)
            position.dropped += episodes.dropped
            parts.buffer.insert(episodes.batch)
            metrics = _update(session)
            if metrics and position.env_steps >= position.next_log:
                position.next_log = position.env_steps + run.log_interval
                played = mean_metrics({"return": episodes.returns, **episodes.metrics})
                dropped = {"dropped_episodes": position.dropped} if position.dropped else {}
                session.log({f"{name}_mean": value for name, value in played.items()} | metrics | dropped)
            if run.save_model_interval and position.env_steps >= position.next_save:
                position.next_save += run.save_model_interval
                session.save_model()
            progress.update(position.env_steps)
        session.safe_point()
        if run.test_nepisode:
            progress.update(position.env_steps, **_test(session))
    if run.save_model:
        session.save_model()
    position.trained = True


def _test(session: Session) -> dict[str, float]:
    found = _evaluate(session, session.config.run.test_nepisode)
    watch = session.watch
    spent = {"cpu_seconds": watch.process, "wall_seconds": watch.wall, "episode": float(session.position.episodes)}
    session.log({f"test_{name}_mean": value for name, value in found.items()} | spent)
    session.parts.learner.after_test(found)
    return {name: found[name] for name in ("success", "return") if name in found}


def _evaluate(session: Session, n_episodes: int) -> dict[str, float]:
    """Greedy episodes; where a signal ends them halfway, the state from before them is saved."""
    parts = session.parts
    envs, controller, random = parts.test.envs.state_dict(), parts.controller.state_dict(), global_rng_state()
    try:
        return evaluate(parts.test, session.clock, n_episodes, session.stop.check)
    except StopRequested:
        parts.test.envs.load_state_dict(envs)
        parts.controller.load_state_dict(controller)
        load_global_rng_state(random)
        session.save_full()
        raise


def _update(session: Session) -> Metrics | None:
    """The learner's update; what a NaN came from is saved, and no checkpoint ever holds it.

    Raises:
        RunFailed: a loss is not finite, or there is not as much memory.
    """
    parts, folder = session.parts, session.folder / "failed_update"
    try:
        return parts.learner.update(parts.buffer, session.clock)
    except NonFiniteUpdate as error:
        state = session.state(with_buffer=True) | {"drawn": parts.buffer.drawn}
        kept = f"Parameters, buffer and the sampled episodes (drawn) before that step are in {folder}"
        try:
            save_checkpoint(folder, state, session.manifest())
        except UserError as refused:
            kept = str(refused)
        bad = "; ".join(f"{name} of episodes {ids} is not finite" for name, ids in parts.buffer.non_finite().items())
        raise RunFailed(
            f"update {parts.learner.updates + 1} at {session.position.env_steps:,} environment steps: {error}. "
            f"{bad or 'All fields of the sampled episodes are finite'}. {kept}; earlier checkpoints are as they were"
        ) from error
    except (MemoryError, RuntimeError) as error:
        # PyTorch has a type for a full GPU alone.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        values = session.config.values
        sizes = [key for key in values if key.startswith("batch_size") and key != "batch_size_run"]
        smaller = ", ".join([*(f"{key} < {values[key]}" for key in sizes), "smaller networks"])
        raise RunFailed(
            f"update {parts.learner.updates + 1} at {session.position.env_steps:,} environment steps needs more memory "
            f"than there is: use {smaller}; earlier checkpoints are kept"
        ) from error
