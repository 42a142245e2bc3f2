"""Trainings through the command in the stand-in game, which is killed and stopped while they go on."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.faults import before_round, left_by, read, resume, run_in, send, start
from support.sc2_processes import check_nothing_is_left, games, require_packages, strike

from components.checkpoint import load_checkpoint
from components.checkpoint_folders import MODELS, checkpoints_in
from components.episode_buffer import EpisodeBatch, ReplayBuffer
from controllers.base import Clock
from runners.episode_runner import EpisodeRunner, Episodes

pytestmark = [pytest.mark.sc2, pytest.mark.slow, pytest.mark.timeout(900)]
require_packages()

LIMIT = 30
# Three games; an episode out of time is cut off, so that it differs from one that is decided.
TRAINING = (
    *(f"env_args.episode_limit={LIMIT}", "env_args.continuing_episode=true", "env_args.step_timeout=2"),
    *("env_args.start_timeout=60", "batch_size_run=3", "test_nepisode=0", "final_nepisode=3", "log_interval=100"),
)
RUNNERS = {"episode": ("runner=episode",), "parallel": ("runner=parallel", "n_workers=2")}
# Signals to a game, in as many rounds; with both runners twenty.
STRIKES = [signal.SIGKILL, signal.SIGSTOP] * 5
ROUNDS = 14


@dataclass
class Striker:
    """Strikes a random game a moment after a training round has begun, in each round from the second on.

    Between rounds no game is starting, so that those that are there then all play: one that is stopped while it starts
    is waited for much longer.

    Args:
        folder: of the games.
    """

    folder: Path
    struck: list[int] = field(default_factory=list)
    _coming: list[threading.Timer] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(3))  # noqa: S311

    def plan(self) -> None:
        """A round begins."""
        there = [pid for pid in games(self.folder) if pid not in self.struck]
        if there and len(self.struck) < len(STRIKES):
            pid = self._random.choice(there)
            timer = threading.Timer(self._random.uniform(0.0, 0.4), strike, [pid, STRIKES[len(self.struck)]])
            self.struck.append(pid)
            self._coming.append(timer)
            timer.start()

    def wait(self) -> None:
        """Until the last one has struck."""
        for timer in self._coming:
            timer.join()


def check_episode(episode: EpisodeBatch) -> None:
    """Nothing in it is made up: it is whole, of one game, and ends as episodes of the game do."""
    length = int(episode.lengths()[0])
    arrays = {name: tensor[0, : length + 1].numpy() for name, tensor in episode.data.items()}
    ended = (arrays["terminated"] + arrays["truncated"])[:, 0]
    assert np.flatnonzero(ended).tolist() == [length - 1]
    alive = {name: arrays[f"{name}_alive"] for name in ("agent", "task")}
    decided = not all(row[-1].any() for row in alive.values())
    assert arrays["terminated"][length - 1, 0] == decided
    assert decided or length == LIMIT
    for name, living in alive.items():
        feats = arrays[f"{name}_feats"]
        assert not (living[1:] & ~living[:-1]).any(), "nobody rises"
        assert (np.diff(feats[..., 2], axis=0) <= 1e-6).all(), "marines do not heal"
        moved = np.abs(np.diff(feats[..., :2], axis=0))[living[1:]]
        assert moved.size == 0 or moved.max() < 0.5, "nobody is somewhere else at once"


@pytest.mark.parametrize("runner", RUNNERS)
def test_games_die_and_hang_in_a_training(game: Path, monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    striker, kept, dropped = Striker(game), list[EpisodeBatch](), list[int]()
    collect, insert = EpisodeRunner.collect, ReplayBuffer.insert

    def collect_under_fire(self: EpisodeRunner, clock: Clock, test_mode: bool = False) -> Episodes:
        if not test_mode:
            striker.plan()
        episodes = collect(self, clock, test_mode)
        if not test_mode:
            dropped.append(episodes.dropped)
        return episodes

    def insert_and_keep(self: ReplayBuffer, batch: EpisodeBatch) -> None:
        kept.extend(batch[b : b + 1] for b in range(batch.batch_size))
        insert(self, batch)

    monkeypatch.setattr(EpisodeRunner, "collect", collect_under_fire)
    monkeypatch.setattr(ReplayBuffer, "insert", insert_and_keep)
    settings = (*TRAINING, *RUNNERS[runner], "env_args.map_name=3m", f"t_max={ROUNDS * 3 * LIMIT}")
    assert start(game, *settings, algorithm="lpmarl", env="sc2") == 0
    striker.wait()
    assert not multiprocessing.active_children()
    check_nothing_is_left(game)

    folder = run_in(game)
    state = load_checkpoint(checkpoints_in(folder / MODELS)[0]).state
    restarts = sum(env["restarts"] for env in environments(state["train_envs"]))
    assert len(striker.struck) == len(STRIKES)
    # A slow machine may add to them.
    assert restarts >= len(STRIKES)
    assert 0 < sum(dropped) <= restarts
    summary = read(folder / "summary.json")
    assert summary["dropped_episodes"] == state["position"]["dropped"] == sum(dropped)
    assert read(folder / "info.json")["dropped_episodes"][-1] > 0
    assert state["position"]["episodes"] == len(kept)
    assert state["position"]["env_steps"] == sum(int(episode.lengths()[0]) for episode in kept)
    for episode in kept:
        check_episode(episode)


def environments(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Of one process or of several."""
    shares = state.get("workers", [state])
    return [env for share in shares for env in share["envs"]]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_training_that_was_stopped_goes_on(
    game: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runner: str
) -> None:
    settings = (*TRAINING, *RUNNERS[runner], "env_args.map_name=3m", "t_max=500", "replay_nepisode=2")
    with monkeypatch.context() as patch:
        before_round(patch, 3, send())
        assert start(game, *settings, algorithm="lpmarl", env="sc2") == 143
    check_nothing_is_left(game)
    folder = run_in(game)
    assert "cannot be saved" not in capsys.readouterr().err
    assert resume(folder) == 0
    check_nothing_is_left(game)
    told = [line for line in capsys.readouterr().err.splitlines() if "a game of sc2 cannot be saved" in line]
    assert len(told) == 1
    left = left_by(folder)
    assert left["status"] == "COMPLETED"
    assert left["env_steps"] >= 500
    assert left["updates"] > 0
    steps = [line["t"] for line in left["metrics"] if line["key"] == "return_mean"]
    assert steps == sorted(set(steps))
    assert (folder / "replay.html").exists()
    # Games after the resume have seeds of their own.
    state = load_checkpoint(checkpoints_in(folder / MODELS)[0]).state
    assert [env["games"] for env in environments(state["train_envs"])] == [2, 2, 2]
