"""A NaN or an infinity in an update: the run stops before it does harm and keeps what it came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.faults import OFTEN, before_round, full_states, left_by, resume, run_in, start, status
from support.small_runs import fingerprint

import experiment
from components import files
from components.checkpoint import Checkpoint, load_checkpoint, verify_checkpoint
from components.config import recorded_config
from components.episode_buffer import EpisodeBatch, StepIndex
from learners.lpmarl_batches import sample_high
from learners.lpmarl_learner import LpmarlLearner
from parts import Parts, build
from runners.episode_runner import EpisodeRunner

Printed = pytest.CaptureFixture[str]


def poison(patch: pytest.MonkeyPatch, number: int, field: str, value: float, row: int = 1) -> None:
    """The environment gives such a value in one episode of the training round of that number."""
    real, count = EpisodeRunner.collect, 0

    def collect(self: EpisodeRunner, clock: Any, test_mode: bool = False) -> Any:
        nonlocal count
        episodes = real(self, clock, test_mode)
        count += not test_mode
        if count == number and not test_mode:
            episodes.batch.data[field][row, 1:-1] = value
        return episodes

    patch.setattr(EpisodeRunner, "collect", collect)


def catch_parts(patch: pytest.MonkeyPatch) -> list[Parts]:
    """The parts of the runs that follow."""
    caught: list[Parts] = []

    def built(config: Any) -> Parts:
        caught.append(build(config))
        return caught[-1]

    patch.setattr(experiment, "build", built)
    return caught


@pytest.fixture
def saved_parts() -> Iterator[Callable[[Checkpoint], Parts]]:
    """Parts as a checkpoint has them."""
    made: list[Parts] = []

    def load(checkpoint: Checkpoint) -> Parts:
        made.append(build(recorded_config(checkpoint.meta["config"], "checkpoint")))
        made[-1].load_state_dict(checkpoint.state)
        return made[-1]

    yield load
    for parts in made:
        parts.close()


def losses(parts: Parts, drawn: np.ndarray) -> list[torch.Tensor]:
    """The learner's losses over the episodes that were drawn, with the networks as they are."""
    buffer: Any = parts.buffer
    learner: Any = parts.learner
    ids = torch.from_numpy(np.unique(drawn))
    if not isinstance(learner, LpmarlLearner):
        data = {name: buffer.episodes(name, ids) for name in buffer._storage.data}
        return [learner.loss(EpisodeBatch(data, buffer._storage.n_actions))[0]]
    lengths = buffer.lengths(ids)
    every = StepIndex(torch.repeat_interleave(ids, lengths), torch.cat([torch.arange(int(n)) for n in lengths]))
    buffer.sample_steps = lambda count: every
    buffer.sample_ids = lambda count: ids
    options = learner.options
    high = sample_high(
        buffer, 10_000, options.gamma_high, options.n_step_high, np.random.default_rng(0), torch.device("cpu")
    )
    return [learner.low_critic_loss(learner._sample_low(buffer))[1], learner.high.critic_loss(high)[1]]


def all_finite(parts: Parts) -> bool:
    owners: tuple[Any, ...] = (parts.controller, parts.learner)
    networks = [getattr(owner, name, None) for owner in owners for name in ("agent", "nets", "critic", "target")]
    return all(bool(torch.isfinite(p).all()) for net in networks if net is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("algorithm", "field", "value"),
    [
        ("qmix", "reward", np.nan),
        ("vdn", "reward", np.inf),
        ("iql", "obs", np.nan),
        ("lpmarl", "task_reward", np.nan),
        ("lpmarl", "reward_high", -np.inf),
    ],
)
def test_a_poisoned_episode_stops_the_run_before_the_step(
    algorithm: str,
    field: str,
    value: float,
    tmp_path: Path,
    capsys: Printed,
    saved_parts: Callable[[Checkpoint], Parts],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, 4, field, value)
        caught = catch_parts(patch)
        assert start(tmp_path, OFTEN, algorithm=algorithm) == 1
    folder = run_in(tmp_path)
    printed = capsys.readouterr().err
    failed = load_checkpoint(folder / "failed_update")
    steps, updates = failed.state["position"]["env_steps"], failed.state["learner"]["updates"]
    assert f"error: update {updates + 1} at {steps:,} environment steps: " in printed
    assert f"{field} of episodes [13] is not finite" in printed  # three rounds of four, then the second
    assert str(folder / "failed_update") in printed
    assert "Traceback" not in printed
    assert status(folder) == "FAILED"
    assert not (folder / "summary.json").exists()
    assert 13 in failed.state["drawn"]
    assert fingerprint(failed.state["learner"]) == fingerprint(caught[0].learner.state_dict())
    parts = saved_parts(failed)
    assert all_finite(parts)
    found = losses(parts, failed.state["drawn"])
    assert not all(bool(torch.isfinite(loss)) for loss in found)
    for state in full_states(folder):
        verify_checkpoint(state)


def test_no_parameter_changes_in_the_step_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught, before = catch_parts(monkeypatch), []

    def remember() -> None:
        learner = caught[0].learner
        real = learner.update

        def update(buffer: Any, clock: Any) -> Any:
            before.append(fingerprint(learner.state_dict()["nets"]))
            return real(buffer, clock)

        monkeypatch.setattr(learner, "update", update)

    poison(monkeypatch, 4, "reward", np.nan)
    before_round(monkeypatch, 1, remember)
    assert start(tmp_path) == 1
    failed = load_checkpoint(run_in(tmp_path) / "failed_update")
    assert len(before) > 3
    assert before[-1] != before[-2]
    assert fingerprint(failed.state["learner"]["nets"]) == before[-1]


def spoil(patch: pytest.MonkeyPatch, network: str) -> None:
    """One weight of the learner's network is infinite from the fifth training round on."""
    caught = catch_parts(patch)

    def act() -> None:
        next(getattr(caught[0].learner, network).parameters()).data.view(-1)[0] = torch.inf

    before_round(patch, 5, act)


@pytest.mark.parametrize(("algorithm", "network"), [("qmix", "nets"), ("iql", "targets"), ("lpmarl", "critic")])
def test_a_weight_that_is_not_finite_stops_the_run(
    algorithm: str, network: str, tmp_path: Path, capsys: Printed
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, network)
        assert start(tmp_path, OFTEN, algorithm=algorithm) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "error: update" in printed
    assert "All fields of the sampled episodes are finite" in printed
    if network != "targets":
        assert "weights of shape" in printed
    assert status(run_in(tmp_path)) == "FAILED"


def test_scores_that_are_not_finite_stop_the_run_where_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "actor")
    with pytest.raises(ValueError, match=r"score of agent \d+ for task \d+ is nan"):
        start(tmp_path, algorithm="lpmarl")
    assert status(run_in(tmp_path)) == "FAILED"


@pytest.mark.parametrize(("algorithm", "field"), [("qmix", "reward"), ("lpmarl", "task_reward")])
def test_a_failed_run_goes_on_exactly_from_before_the_fault(algorithm: str, field: str, tmp_path: Path) -> None:
    newest_only = "buffer_size=4"  # so that the update after the poisoned round draws it
    assert start(tmp_path / "whole", newest_only, algorithm=algorithm) == 0
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, 5, field, np.nan)
        assert start(tmp_path / "failed", OFTEN, newest_only, algorithm=algorithm) == 1
    folder = run_in(tmp_path / "failed")
    assert len(full_states(folder)) == 2
    assert resume(folder) == 0
    assert left_by(folder) == left_by(run_in(tmp_path / "whole"))


def test_a_full_disk_does_not_hide_the_nan(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.temporary_sibling

    def refuse(path: Path) -> Path:
        if path.name == "failed_update":
            raise OSError(28, os.strerror(28))
        return real(path)

    monkeypatch.setattr("components.checkpoint.temporary_sibling", refuse)
    poison(monkeypatch, 4, "reward", np.nan)
    assert start(tmp_path) == 1
    printed = capsys.readouterr().err
    assert "reward of episodes [13] is not finite" in printed
    assert "No space left on device" in printed
    assert "Traceback" not in printed
