"""Every shipped algorithm on a GPU: the processor's update, exact resume. Skipped where PyTorch sees no CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.algorithm_runs import ALGORITHMS, learned, resumes_exactly, run
from support.small_runs import play, start_clock

from controllers.base import Clock
from parts import Parts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
CUDA = "use_cuda=true"
# One update differs by rounding alone. Adam divides by the gradient's size, so rounding of a gradient that is nearly
# zero moves its parameter by up to the learning rate: the whole change is compared, not each entry.
CHANGE = 2e-2
LOSS = 1e-3


def networks(parts: Parts) -> dict[str, torch.nn.Module]:
    """The controller's and the learner's networks, targets included."""
    return {
        f"{owner}/{name}": network
        for owner in ("controller", "learner")
        for name, value in vars(getattr(parts, owner)).items()
        for network in (value.values() if isinstance(value, dict) else [value])
        if isinstance(network, torch.nn.Module)
    }


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a nested state with floating numbers, by the path to each."""
    if isinstance(state, torch.Tensor):
        if state.is_floating_point():
            yield path, state.detach().cpu().double()
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors(value, f"{path}/{key}")
    elif isinstance(state, (list, tuple)):
        for i, value in enumerate(state):
            yield from tensors(value, f"{path}/{i}")


def weights(parts: Parts) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": tensor
        for name, module in networks(parts).items()
        for key, tensor in tensors(module.state_dict())
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_everything_that_learns_lies_on_the_gpu(algorithm: str) -> None:
    with run(algorithm, CUDA) as parts:
        play(parts, start_clock(), 4)
        assert parts.learner.updates >= 3
        found = [(name, key, t) for name, net in networks(parts).items() for key, t in net.named_parameters()]
        assert found
        assert [(name, key) for name, key, tensor in found if tensor.device.type != "cuda"] == []
        assert all(torch.isfinite(tensor).all() for _, _, tensor in found)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_update_is_the_processors(algorithm: str) -> None:
    with run(algorithm) as cpu, run(algorithm, CUDA, "seed=77") as gpu:
        clock, done = start_clock(), 3
        while cpu.learner.updates <= done:
            episodes = cpu.train.collect(clock)
            clock = Clock(clock.env_steps + episodes.env_steps, clock.episodes + len(episodes.returns), clock.t_max)
            cpu.buffer.insert(episodes.batch)
            gpu.load_state_dict(deepcopy(cpu.state_dict(with_buffer=True)))
            before, losses = weights(cpu), []
            assert all(torch.equal(before[name], tensor) for name, tensor in weights(gpu).items())
            for parts in (cpu, gpu):
                torch.manual_seed(0)
                losses.append(parts.learner.update(parts.buffer, clock))
        assert gpu.learner.updates == cpu.learner.updates
        assert losses[0] is not None
        assert losses[1] == pytest.approx(losses[0], rel=LOSS, abs=LOSS)
        names = sorted(before)
        change = torch.cat([(weights(cpu)[name] - before[name]).flatten() for name in names])
        off = torch.cat([(weights(gpu)[name] - weights(cpu)[name]).flatten() for name in names])
        assert change.norm() > 0
        assert off.norm() / change.norm() < CHANGE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_goes_on_bit_by_bit(algorithm: str, tmp_path: Path) -> None:
    resumes_exactly(tmp_path, algorithm, CUDA)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_seed_decides_everything(algorithm: str) -> None:
    found = []
    for _ in range(2):
        with run(algorithm, CUDA) as parts:
            play(parts, start_clock(), 6)
            found.append(learned(parts))
    assert found[0] == found[1]
