"""Builds everything that a run is made of from the registries."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from components.checkpoint import load_into
from components.config import Config, RunOptions
from components.episode_buffer import FieldSpec, ReplayBuffer, episode_fields
from components.errors import UserError
from components.fit import check_arguments, check_fit
from components.random import stream
from components.registry import Options
from controllers import REGISTRY as CONTROLLERS
from controllers.base import Controller
from envs.base import EnvInfo, VectorEnv, derive_seeds
from envs.vector import in_process
from learners import REGISTRY as LEARNERS
from learners.base import Learner
from modules.agents import REGISTRY as AGENTS
from modules.critics import REGISTRY as CRITICS
from modules.mixers import REGISTRY as MIXERS
from runners import REGISTRY as RUNNERS
from runners.episode_runner import EpisodeRunner
from utils.logging import get_logger

TRAIN_SEEDS, TEST_SEEDS = 0, 1
# Test episodes are played at most this many at a time, where environments cost no more than memory.
TEST_BATCH = 250
# Networks that a learner may take, by selector.
MODULES = {"critic": CRITICS, "mixer": MIXERS}


@dataclass
class Parts:
    """Everything that a run is made of."""

    controller: Controller
    learner: Learner
    buffer: ReplayBuffer
    train: EpisodeRunner
    test: EpisodeRunner
    device: torch.device

    def state_dict(self, with_buffer: bool) -> dict[str, Any]:
        """Everything in the parts that the rest of the run depends on."""
        return {
            "controller": self.controller.state_dict(),
            "learner": self.learner.state_dict(),
            "train_envs": self.train.envs.state_dict(),
            "test_envs": self.test.envs.state_dict(),
        } | ({"buffer": self.buffer.state_dict()} if with_buffer else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave; without a buffer in it, training starts with an empty one."""
        load_into(self.controller, state["controller"], "controller")
        load_into(self.learner, state["learner"], "learner")
        load_into(self.train.envs, state["train_envs"], "train_envs")
        load_into(self.test.envs, state["test_envs"], "test_envs")
        if "buffer" in state:
            load_into(self.buffer, state["buffer"], "buffer")

    def start_from(self, state: Mapping[str, Any]) -> None:
        """Takes what another run learned, and stored if that was saved.

        Environments and random streams stay those of this run's seed, so that runs from one checkpoint differ, and the
        optimizers' rates those of its options.
        """
        parts: dict[str, Any] = {"controller": self.controller, "learner": self.learner}
        for name, part in (parts | ({"buffer": self.buffer} if "buffer" in state else {})).items():
            load_into(part, _with_own(state[name], part.state_dict()), name)

    def close(self) -> None:
        """Releases the environments."""
        self.train.envs.close()
        self.test.envs.close()


def _with_own(saved: Any, own: Any) -> Any:
    """A saved state with the random streams of ``own`` and what its optimizers were given."""
    if not isinstance(saved, Mapping) or not isinstance(own, Mapping):
        return saved
    if "param_groups" in saved and "param_groups" in own:
        return {**saved, "param_groups": _same_kind(saved["param_groups"], own["param_groups"])}
    return {key: own[key] if key == "rng" else _with_own(value, own.get(key)) for key, value in saved.items()}


def _same_kind(saved: list[dict[str, Any]], own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``own``, if its optimizer takes what the saved one takes: another one cannot go on with its moments."""
    differ = {key for mine, theirs in zip(own, saved, strict=False) for key in mine.keys() ^ theirs.keys()}
    if differ:
        raise UserError(
            f"the checkpoint is of another optimizer than this run's (they differ in {', '.join(sorted(differ))}): "
            f"train on with the optimizer that it was made with"
        )
    return own


def build(config: Config) -> Parts:
    """Builds the parts that a configuration names."""
    run, options = config.run, config.parts
    device = _device(run.use_cuda)
    torch.set_num_threads(run.torch_threads)
    torch.manual_seed(run.seed)
    mac, agent, learner_name, modules = _chosen(run)
    probe = in_process(run.env, options["env"], [0], ())
    info = probe.info
    probe.close()
    controller: Controller = CONTROLLERS[mac](
        info,
        options["mac"],
        agent=_factory(f"agent = {agent!r}", AGENTS[agent], options["agent"]),
        rng=stream(run.seed, "controller"),
        device=device,
    )
    factories = {key: _factory(f"{key} = {name!r}", MODULES[key][name], options[key]) for key, name in modules.items()}
    learner: Learner = LEARNERS[learner_name](
        controller, info, options["learner"], rng=stream(run.seed, "learner"), device=device, **factories
    )
    _check_buffer_size(run, learner)
    observed = tuple(dict.fromkeys((*controller.fields, *learner.fields)))
    fields = episode_fields(info, observed, learner.rewards, controller.extra_fields())
    at_once = run.batch_size_run if info.external else TEST_BATCH
    n_test = min(at_once, run.test_nepisode or run.final_nepisode or 1)
    train = _make_envs(config, derive_seeds(run.seed, TRAIN_SEEDS, run.batch_size_run), observed)
    test = _make_envs(config, derive_seeds(run.seed, TEST_SEEDS, n_test), observed)
    buffer = _buffer(run, fields, info)
    return Parts(
        controller,
        learner,
        buffer,
        EpisodeRunner(train, controller, fields),
        EpisodeRunner(test, controller, fields),
        device,
    )


def _check_buffer_size(run: RunOptions, learner: Learner) -> None:
    """Refuses a buffer in which episodes are overwritten before they can be learned from.

    Raises:
        UserError: says how large it has to be.
    """
    size, needs, at_once = run.buffer_size, learner.needs_episodes, run.batch_size_run
    if size < needs:
        raise UserError(
            f"buffer_size = {size} never holds the {needs} episodes that learner = {run.learner!r} waits for: use "
            f"buffer_size >= {needs}"
        )
    arrive = -(-needs // at_once) * at_once if learner.each_once else at_once
    if size < arrive:
        raise UserError(
            f"buffer_size = {size} loses episodes that learner = {run.learner!r} has not seen: {arrive} come, "
            f"batch_size_run = {at_once} at once, before it learns; use buffer_size >= {arrive}"
        )


def _buffer(run: RunOptions, fields: dict[str, FieldSpec], info: EnvInfo) -> ReplayBuffer:
    """The replay buffer.

    Raises:
        UserError: there is not as much memory.
    """
    length = info.episode_limit + 1
    try:
        return ReplayBuffer(fields, run.buffer_size, length, info.n_actions, stream(run.seed, "buffer"))
    except (RuntimeError, MemoryError) as failed:
        each = length * sum(spec.dtype.itemsize * math.prod(spec.shape) for spec in fields.values())
        raise UserError(
            f"buffer_size = {run.buffer_size} episodes of {length} steps take {run.buffer_size * each / 1e9:,.0f} GB, "
            f"more memory than there is ({each / 1e6:,.1f} MB for each episode): use a smaller buffer_size"
        ) from failed


def _device(use_cuda: bool) -> torch.device:
    """Where networks live. A GPU is told to add in one order always, or no resumed run would repeat bit by bit."""
    if not use_cuda:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        get_logger().warning("use_cuda is true but PyTorch sees no CUDA device: the run goes on on the CPU")
        return torch.device("cpu")
    # cuBLAS reads it when it is first used; one of the two sizes with which it repeats itself.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda")


def _chosen(run: RunOptions) -> tuple[str, str, str, dict[str, str]]:
    """Names of controller, agent, learner and the learner's networks, once they are known to fit together.

    Raises:
        UserError: two of them do not.
    """
    if run.mac is None or run.learner is None or run.agent is None:
        raise UserError("mac, learner and agent must name a part: null is possible only for critic and mixer")
    modules = {key: name for key, name in (("critic", run.critic), ("mixer", run.mixer)) if name is not None}
    owner, learner = f"learner = {run.learner!r}", LEARNERS[run.learner]
    check_fit(f"mac = {run.mac!r}", CONTROLLERS[run.mac], "agent", run.agent, AGENTS)
    check_fit(owner, learner, "controller", run.mac, CONTROLLERS)
    check_arguments(owner, learner, modules, MODULES)
    for key, name in modules.items():
        check_fit(owner, learner, key, name, MODULES[key])
    return run.mac, run.agent, run.learner, modules


def _factory(named: str, module: type[nn.Module], options: Options) -> Callable[..., nn.Module]:
    """The network with its options given; the caller adds the shapes.

    Raises:
        UserError: by the network made: there is not as much memory.
    """

    def make(*shapes: Any) -> nn.Module:
        try:
            return module(*shapes, **options.model_dump())
        except RuntimeError as failed:
            if not re.search("allocate|out of memory|overflow", str(failed)):
                raise
            sizes = ", ".join(f"{key} = {value}" for key, value in options if type(value) is int)
            raise UserError(f"{named} takes more memory than there is: use less of {sizes}") from failed

    return make


def _make_envs(config: Config, seeds: list[int], fields: tuple[str, ...]) -> VectorEnv:
    make: Callable[..., VectorEnv] = RUNNERS[config.run.runner]
    return make(config.run.env, config.parts["env"], seeds, fields, config.parts["runner"])
