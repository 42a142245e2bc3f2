"""A run: the one training loop, evaluation, and what is recorded."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from compat import install as install_tensorboard_logger
from components.checkpoint import load_checkpoint, load_into, require_same, save_checkpoint
from components.config import Config
from components.files import write_json_atomic
from controllers.base import Clock
from parts import Parts, build
from runners.evaluation import TEST_KEYS, evaluate, mean_metrics
from utils.logging import Logger, get_logger, summary_writer_class
from utils.progress import Progress
from utils.run_record import git_commit, redact, run_folder
from utils.sacred_run import start_run

ROOT = Path(__file__).resolve().parents[1]


def run_experiment(config: Config) -> Path:
    """Runs a validated configuration, recorded by Sacred, and returns the run's folder.

    Whatever the user got wrong is found before anything is written.
    """
    run = config.run
    if run.use_tensorboard:
        summary_writer_class()
        install_tensorboard_logger()
    parts = build(config)
    try:
        clock = _start(config, parts)
        folder = run_folder(Path(run.local_results_path), run.env, "_".join(filter(None, (run.name, run.label))))
        return start_run(config.values, folder, partial(_recorded, config, parts, clock), ROOT)
    finally:
        parts.close()


def _recorded(config: Config, parts: Parts, clock: Clock, sacred: Any, folder: Path) -> Path:
    """What Sacred records: train, evaluate, save, summarize."""
    write_json_atomic(folder / "config_sources.json", config.sources)
    write_json_atomic(folder / "seeds.json", {"train": parts.train.envs.seeds, "test": parts.test.envs.seeds})
    commit = git_commit(ROOT)
    tensorboard = folder / "tensorboard" if config.run.use_tensorboard else None
    with Logger(get_logger(), folder, sacred.info, tensorboard) as logger:
        started, started_cpu = time.monotonic(), time.process_time()
        if not config.run.evaluate:
            clock = train(config, parts, clock, logger, folder)
        wall, cpu = time.monotonic() - started, time.process_time() - started_cpu
        test = evaluate(parts.test, clock, config.run.final_nepisode) if config.run.final_nepisode else {}
        for key, value in test.items():
            logger.log_stat(f"final_{key}_mean", value, clock.env_steps)
    summary = {
        "algorithm": config.run.name,
        "env": config.run.env,
        "env_args": redact(config.run.env_args),
        "seed": config.run.seed,
        **commit,
        "env_steps": clock.env_steps,
        "updates": parts.learner.updates,
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "env_steps_per_second": round(clock.env_steps / max(wall, 1e-9), 1),
        "device": str(parts.device),
        "test_episodes": config.run.final_nepisode,
        "test": dict.fromkeys(TEST_KEYS) | test,
    }
    write_json_atomic(folder / "summary.json", summary)
    return folder


def train(config: Config, parts: Parts, clock: Clock, logger: Logger, folder: Path) -> Clock:
    """Collect, store, update, and now and then evaluate, log and save; returns the clock at the end."""
    run = config.run
    next_test, next_log, next_save = clock.env_steps, clock.env_steps, clock.env_steps + run.save_model_interval
    with Progress(run.t_max, logger.console_logger, start=clock.env_steps) as progress:
        while clock.env_steps < run.t_max:
            if run.test_nepisode and clock.env_steps >= next_test:
                next_test += run.test_interval
                shown = _test(run.test_nepisode, parts, logger, clock)
                progress.update(clock.env_steps, **shown)
            episodes = parts.train.collect(clock)
            clock = Clock(clock.env_steps + episodes.env_steps, clock.episodes + len(episodes.returns), run.t_max)
            parts.buffer.insert(episodes.batch)
            metrics = parts.learner.update(parts.buffer, clock)
            if metrics and clock.env_steps >= next_log:
                next_log = clock.env_steps + run.log_interval
                played = mean_metrics({"return": episodes.returns, **episodes.metrics})
                _log(logger, clock, {f"{name}_mean": value for name, value in played.items()} | metrics)
            if run.save_model_interval and clock.env_steps >= next_save:
                next_save += run.save_model_interval
                _save(config, parts, clock, folder, with_buffer=True)
            progress.update(clock.env_steps)
    if run.test_nepisode:
        _test(run.test_nepisode, parts, logger, clock)
    if run.save_model:
        _save(config, parts, clock, folder, with_buffer=False)
    return clock


def _start(config: Config, parts: Parts) -> Clock:
    """The clock at 0, or the state of the checkpoint that the run starts from.

    ``evaluate`` takes the controller alone: its test episodes depend on the seed and the environment given now.
    """
    run = config.run
    if not run.checkpoint_path:
        return Clock(0, 0, run.t_max)
    checkpoint = load_checkpoint(Path(run.checkpoint_path))
    if run.evaluate:
        require_same(checkpoint.meta, _meta(config), ("algorithm", "env"))
        load_into(parts.controller, checkpoint.state["controller"], "controller")
        return Clock(**checkpoint.state["clock"], t_max=run.t_max)
    require_same(checkpoint.meta, _meta(config), ("algorithm", "env", "env_args"))
    return parts.load_state_dict(checkpoint.state, run.t_max)


def _test(n_episodes: int, parts: Parts, logger: Logger, clock: Clock) -> dict[str, float]:
    found = evaluate(parts.test, clock, n_episodes)
    cpu = {"cpu_seconds": time.process_time(), "episode": float(clock.episodes)}
    _log(logger, clock, {f"test_{name}_mean": value for name, value in found.items()} | cpu)
    return {name: found[name] for name in ("success", "return") if name in found}


def _log(logger: Logger, clock: Clock, values: dict[str, float]) -> None:
    for key, value in values.items():
        logger.log_stat(key, value, clock.env_steps)


def _save(config: Config, parts: Parts, clock: Clock, folder: Path, with_buffer: bool) -> None:
    meta = _meta(config) | {"env_steps": clock.env_steps}
    save_checkpoint(folder / "checkpoints" / str(clock.env_steps), parts.state_dict(clock, with_buffer), meta)


def _meta(config: Config) -> dict[str, Any]:
    run = config.run
    about = {"algorithm": run.name, "env": run.env, "env_args": redact(run.env_args), "seed": run.seed}
    return about | git_commit(ROOT) | {"config": redact(config.values)}
