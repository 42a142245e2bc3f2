"""Episodes that an environment drops, as when a game dies, never reach the buffer, and nothing waits for them."""

from typing import Any

import numpy as np
import pytest
import torch

from components.episode_buffer import EpisodeBatch, episode_fields
from controllers.base import Clock, Controller, Decision
from envs.base import DROPPED, EnvInfo, MultiAgentEnv
from envs.vector import SerialEnvs
from runners.episode_runner import EpisodeRunner

LIMIT = 5
FIELDS = ("obs", "state", "avail_actions")


class Fragile(MultiAgentEnv):
    """Counts its steps; in the episodes named it dies at the third step."""

    info = EnvInfo(n_agents=1, n_actions=2, obs_shape=1, state_shape=1, episode_limit=LIMIT)

    def __init__(self, number: int, dies_in: set[int]) -> None:
        self.number, self.dies_in, self.episode, self.t = number, dies_in, -1, 0

    def reset(self) -> dict[str, Any]:
        self.episode, self.t = self.episode + 1, 0
        return self.look()

    def look(self) -> dict[str, Any]:
        seen = np.array([100 * self.number + 10 * self.episode + self.t], dtype=np.float32)
        return {"obs": seen[None], "state": seen, "avail_actions": np.ones((1, 2), np.int32)}

    def step(self, actions: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.t == 3 and self.episode in self.dies_in:
            return self.look(), 0.0, False, False, {DROPPED: np.bool_(True)}
        return self.look(), 1.0, False, self.t == LIMIT, {}

    def episode_metrics(self) -> dict[str, float]:
        return {"number": float(self.number)}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


class Still(Controller):
    fields = FIELDS

    def begin_episodes(self, batch_size: int) -> None: ...

    def act(self, batch: EpisodeBatch, t: int, rows: Any, clock: Clock, test_mode: bool) -> Decision:
        return Decision(np.zeros((len(batch["filled"][rows]), 1), dtype=np.int64))

    def modules(self) -> dict[str, Any]:
        return {}


def runner(*dies_in: set[int]) -> EpisodeRunner:
    envs = SerialEnvs([Fragile(i, dies) for i, dies in enumerate(dies_in)], list(range(len(dies_in))), FIELDS)
    return EpisodeRunner(envs, Still(), episode_fields(envs.info, FIELDS, (), {}))


def test_the_others_go_on_and_the_lost_one_is_left_out():
    episodes = runner(set(), {0}, set()).collect(Clock(0, 0, 1))
    assert episodes.metrics["number"].tolist() == [0, 2]
    assert episodes.returns.tolist() == [LIMIT, LIMIT]
    assert episodes.env_steps == 2 * LIMIT
    assert episodes.dropped == 1
    assert torch.equal(episodes.batch["state"][:, 0, 0], torch.tensor([0.0, 200.0]))
    assert episodes.batch.lengths().tolist() == [LIMIT, LIMIT]


def test_where_all_are_lost_others_are_played():
    episodes = runner({0, 1}, {0}).collect(Clock(0, 0, 1))
    assert episodes.batch["state"][:, 0, 0].tolist() == [110.0]
    assert episodes.dropped == 3


@pytest.mark.parametrize("dies_in", [(set(), set()), ({5}, {6})])
def test_where_none_is_lost_nothing_changes(dies_in):
    episodes = runner(*dies_in).collect(Clock(0, 0, 1))
    assert (episodes.batch.batch_size, episodes.dropped) == (2, 0)
