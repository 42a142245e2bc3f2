"""What every shipped algorithm must do: train with finite numbers, resume exactly, repeat exactly, read its options."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.algorithm_runs import ALGORITHMS, ENV, learned, resumes_exactly, run
from support.small_runs import EARLY, fingerprint, play, small_parts, start_clock

from components.config import PARTS, load_config
from components.config_layers import CONFIG_ROOT
from components.errors import UserError
from components.registry import Options, Registry
from runners.episode_runner import Episodes

ENVS = sorted(path.stem for path in (CONFIG_ROOT / "envs").glob("*.yaml"))
# The shipped agent, and the other network of value-based algorithms.
VARIANTS: list[tuple[str, tuple[str, ...]]] = [
    *((name, ()) for name in ALGORITHMS),
    *((name, ("agent=mlp",)) for name in ALGORITHMS if load_config(name, ENV).run.agent == "gru"),
]


@pytest.mark.parametrize(("algorithm", "overrides"), VARIANTS)
def test_collects_and_updates_with_finite_numbers(algorithm: str, overrides: tuple[str, ...]) -> None:
    with run(algorithm, *overrides) as parts:
        _, logged = play(parts, start_clock(), 4)
        assert parts.learner.updates >= 3
        found = [metrics for metrics in logged if metrics is not None]
        assert found
        assert all(isinstance(v, float) and math.isfinite(v) for metrics in found for v in metrics.values())
        assert all(torch.isfinite(p).all() for p in parts.controller.parameters())


def same_episodes(left: Episodes, right: Episodes) -> bool:
    return fingerprint(left.batch.data) == fingerprint(right.batch.data)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("test_mode", [True, False])
def test_a_copy_of_the_controller_acts_the_same_and_is_independent(algorithm: str, test_mode: bool) -> None:
    with run(algorithm) as parts:
        clock, _ = play(parts, start_clock(), 1)
        copy = deepcopy(parts.controller)
        envs = parts.train.envs.state_dict()
        original = parts.train.collect(clock, test_mode)
        parts.train.envs.load_state_dict(envs)
        parts.train.controller = copy
        assert same_episodes(original, parts.train.collect(clock, test_mode))
        with torch.no_grad():
            next(copy.parameters()).add_(1.0)
        assert not torch.equal(next(copy.parameters()), next(parts.controller.parameters()))


@pytest.mark.parametrize(("algorithm", "overrides"), VARIANTS)
def test_a_resumed_run_goes_on_bit_by_bit(algorithm: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    resumes_exactly(tmp_path, algorithm, *overrides)


def test_worker_processes_resume_bit_by_bit_and_change_no_result(tmp_path: Path) -> None:
    one_test_env = ("agent=mlp", "test_nepisode=0", "final_nepisode=1")
    found = resumes_exactly(tmp_path, "vdn", "runner=parallel", *one_test_env)
    with run("vdn", *one_test_env) as parts:
        play(parts, start_clock(), 6)
        assert learned(parts) == found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_seed_decides_everything(algorithm: str) -> None:
    found = []
    for seed in (1, 1, 2):
        with run(algorithm, f"seed={seed}") as parts:
            clock = start_clock()
            while parts.learner.updates < 20:
                clock, _ = play(parts, clock, 1)
            found.append(learned(parts))
    assert found[0] == found[1]
    assert found[0] != found[2]


def networks(state: Mapping[str, Any]) -> str:
    """Of everything in a state that is no stream and no rate."""
    kept = {key: value for key, value in state.items() if key != "rng" and "optimizer" not in key}
    return fingerprint(kept)


def rates(value: Any, path: str = "") -> dict[str, Any]:
    """What the optimizers of a nested state were given: rates, decays, epsilons."""
    if not isinstance(value, Mapping):
        return {}
    if "param_groups" in value:
        return {path: [{k: v for k, v in group.items() if k != "params"} for group in value["param_groups"]]}
    return {where: found for key, part in value.items() for where, found in rates(part, f"{path}/{key}").items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_run_from_a_checkpoint_keeps_its_own_chance_and_rates(algorithm: str) -> None:
    with run(algorithm) as trained:
        play(trained, start_clock(), 3)
        state = trained.state_dict(with_buffer=True)
    with run(algorithm, "seed=2") as fresh, run(algorithm, "seed=2") as untouched:
        for group in optimizer_groups(fresh.learner):
            group["lr"] *= 0.5
        given, own = rates(fresh.learner.state_dict()), untouched.state_dict(with_buffer=False)
        fresh.start_from(state)
        found = fresh.state_dict(with_buffer=True)
        for name in ("controller", "learner"):
            assert networks(found[name]) == networks(state[name])
            assert found[name].get("rng") == own[name].get("rng")
        assert rates(found["learner"]) == given
        assert fingerprint([found["train_envs"], found["test_envs"]]) == fingerprint(
            [own["train_envs"], own["test_envs"]]
        )
        assert fingerprint(found["buffer"]["data"]) == fingerprint(state["buffer"]["data"])
        assert found["buffer"]["rng"] == untouched.buffer.state_dict()["rng"]


def optimizer_groups(learner: Any) -> Iterator[dict[str, Any]]:
    for value in vars(learner).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, torch.optim.Optimizer):
                yield from part.param_groups


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("env", ENVS)
def test_every_shipped_key_is_read_and_described(algorithm: str, env: str) -> None:
    config = load_config(algorithm, env)
    # Environments say when LPMARL decides; the others do without.
    assert [note for note in config.unused if "redecide" not in note] == []
    assert set(config.descriptions) == set(config.sources)
    assert [key for key, line in config.descriptions.items() if not line.strip()] == []


def test_every_option_of_every_registered_part_is_described() -> None:
    for path in PARTS.values():
        module, _, name = path.partition(":")
        registry: Registry = getattr(__import__(module, fromlist=[name]), name)
        for entry in registry:
            model: type[Options] = registry.options(entry)
            undescribed = [key for key, field in model.model_fields.items() if not field.description]
            assert undescribed == [], f"{registry.kind} {entry}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("env", ENVS)
def test_every_fitting_pair_of_files_starts(algorithm: str, env: str) -> None:
    learner = load_config(algorithm, env).run.learner
    try:
        parts = small_parts(algorithm, env, *EARLY.get(str(learner), ()))
    except UserError as error:
        if "needs" not in str(error) and "cannot be played" not in str(error):
            raise
        pytest.skip(str(error))
    episodes = parts.train.collect(start_clock())
    parts.close()
    assert episodes.env_steps == int(episodes.batch.lengths().sum())
