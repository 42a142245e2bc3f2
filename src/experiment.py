"""Builds a run's parts from the registries and holds the one training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.checkpoint import load_checkpoint, load_into, require_same, save_checkpoint
from components.config import Config
from components.episode_buffer import ReplayBuffer, episode_fields
from components.errors import UserError
from components.files import write_json_atomic
from components.random import stream
from components.registry import Options
from controllers import REGISTRY as CONTROLLERS
from controllers.base import Clock, Controller
from envs.base import VectorEnv, derive_seeds
from learners import REGISTRY as LEARNERS
from learners.base import Learner
from modules.agents import REGISTRY as AGENTS
from modules.critics import REGISTRY as CRITICS
from modules.mixers import REGISTRY as MIXERS
from runners import REGISTRY as RUNNERS
from runners.episode_runner import EpisodeRunner
from runners.evaluation import TEST_KEYS, evaluate, mean_metrics
from utils.logging import Logger, get_logger
from utils.progress import Progress
from utils.run_record import git_commit, redact, run_folder
from utils.sacred_run import start_run

ROOT = Path(__file__).resolve().parents[1]
TRAIN_SEEDS, TEST_SEEDS = 0, 1
# Test episodes are played at most this many at a time.
TEST_BATCH = 250


@dataclass
class Parts:
    """Everything that a run is made of."""

    controller: Controller
    learner: Learner
    buffer: ReplayBuffer
    train: EpisodeRunner
    test: EpisodeRunner
    device: torch.device

    def state_dict(self, clock: Clock, with_buffer: bool) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "clock": {"env_steps": clock.env_steps, "episodes": clock.episodes},
            "controller": self.controller.state_dict(),
            "learner": self.learner.state_dict(),
            "train_envs": self.train.envs.state_dict(),
            "test_envs": self.test.envs.state_dict(),
        } | ({"buffer": self.buffer.state_dict()} if with_buffer else {})

    def load_state_dict(self, state: dict[str, Any], t_max: int) -> Clock:
        """Restores what ``state_dict`` gave and returns its clock."""
        load_into(self.controller, state["controller"], "controller")
        load_into(self.learner, state["learner"], "learner")
        load_into(self.train.envs, state["train_envs"], "train_envs")
        load_into(self.test.envs, state["test_envs"], "test_envs")
        if "buffer" in state:
            load_into(self.buffer, state["buffer"], "buffer")
        return Clock(**state["clock"], t_max=t_max)

    def close(self) -> None:
        """Releases the environments."""
        self.train.envs.close()
        self.test.envs.close()


def build(config: Config) -> Parts:
    """Builds the parts that a configuration names."""
    run, options = config.run, config.parts
    device = torch.device("cuda" if run.use_cuda and torch.cuda.is_available() else "cpu")
    if run.use_cuda and device.type == "cpu":
        get_logger().warning("use_cuda is true but PyTorch sees no CUDA device: the run goes on on the CPU")
    torch.set_num_threads(run.torch_threads)
    torch.manual_seed(run.seed)
    probe = _make_envs(config, [0], [])
    info = probe.info
    probe.close()
    if run.mac is None or run.learner is None or run.agent is None:
        raise UserError("mac, learner and agent must name a part: null is possible only for critic and mixer")
    controller: Controller = CONTROLLERS[run.mac](
        info,
        options["mac"],
        agent=_factory(AGENTS[run.agent], options["agent"]),
        rng=stream(run.seed, "controller"),
        device=device,
    )
    modules = {
        key: _factory(registry[name], options[key])
        for key, registry, name in (("critic", CRITICS, run.critic), ("mixer", MIXERS, run.mixer))
        if name is not None
    }
    learner: Learner = LEARNERS[run.learner](
        controller, info, options["learner"], rng=stream(run.seed, "learner"), device=device, **modules
    )
    observed = tuple(dict.fromkeys((*controller.fields, *learner.fields)))
    fields = episode_fields(info, observed, learner.rewards, controller.extra_fields())
    n_test = min(TEST_BATCH, run.test_nepisode or run.final_nepisode or 1)
    train = _make_envs(config, derive_seeds(run.seed, TRAIN_SEEDS, run.batch_size_run), observed)
    test = _make_envs(config, derive_seeds(run.seed, TEST_SEEDS, n_test), observed)
    buffer = ReplayBuffer(fields, run.buffer_size, info.episode_limit + 1, info.n_actions, stream(run.seed, "buffer"))
    return Parts(
        controller,
        learner,
        buffer,
        EpisodeRunner(train, controller, fields),
        EpisodeRunner(test, controller, fields),
        device,
    )


def _factory(module: type[nn.Module], options: Options) -> Callable[..., nn.Module]:
    """The network with its options given; the caller adds the shapes."""
    return partial(module, **options.model_dump())


def _make_envs(config: Config, seeds: list[int], fields: tuple[str, ...] | list[str]) -> VectorEnv:
    make: Callable[..., VectorEnv] = RUNNERS[config.run.runner]
    return make(config.run.env, config.parts["env"], seeds, fields, config.parts["runner"])


def run_experiment(config: Config) -> Path:
    """Runs a validated configuration, recorded by Sacred, and returns the run's folder."""
    run = config.run
    if run.checkpoint_path:
        load_checkpoint(Path(run.checkpoint_path))
    parts = build(config)
    try:
        folder = run_folder(Path(run.local_results_path), run.env, "_".join(filter(None, (run.name, run.label))))
        return start_run(config.values, folder, partial(_recorded, config, parts), ROOT)
    finally:
        parts.close()


def _recorded(config: Config, parts: Parts, sacred: Any, folder: Path) -> Path:
    """What Sacred records: train, evaluate, save, summarize."""
    write_json_atomic(folder / "config_sources.json", config.sources)
    write_json_atomic(folder / "seeds.json", {"train": parts.train.envs.seeds, "test": parts.test.envs.seeds})
    tensorboard = folder / "tensorboard" if config.run.use_tensorboard else None
    with Logger(get_logger(), folder, sacred.info, tensorboard) as logger:
        started, started_cpu = time.monotonic(), time.process_time()
        clock = train(config, parts, logger, folder)
        wall, cpu = time.monotonic() - started, time.process_time() - started_cpu
        test = evaluate(parts.test, clock, config.run.final_nepisode) if config.run.final_nepisode else {}
        for key, value in test.items():
            logger.log_stat(f"final_{key}_mean", value, clock.env_steps)
    summary = {
        "algorithm": config.run.name,
        "env": config.run.env,
        "env_args": config.run.env_args,
        "seed": config.run.seed,
        **git_commit(ROOT),
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


def train(config: Config, parts: Parts, logger: Logger, folder: Path) -> Clock:
    """Collect, store, update, and now and then evaluate, log and save; returns the clock at the end."""
    run = config.run
    clock = _start(config, parts)
    if run.evaluate:
        return clock
    next_test, next_log, next_save = clock.env_steps, clock.env_steps, run.save_model_interval
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
    return {"algorithm": run.name, "env": run.env, "env_args": redact(run.env_args), "seed": run.seed} | git_commit(
        ROOT
    )
