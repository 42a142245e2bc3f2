"""SMAC's own environment without the faults that a training cannot live with. Imports smac and pysc2.

What is changed: a lost game is told by an exception instead of a made-up step; a new episode never launches a second
game; the largest reward is computed once and right; enemies have a stable order; exactly the process that was started
is ended.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from operator import attrgetter
from typing import Any

import numpy as np
from absl import flags
from google.protobuf.message import DecodeError
from pysc2.lib import protocol, remote_controller, sc_process
from smac.env import StarCraft2Env
from websocket import WebSocketException

from envs.starcraft2_options import Sc2Options

_LOST = (
    protocol.ProtocolError,
    protocol.ConnectionError,
    remote_controller.ConnectError,
    remote_controller.RequestError,
    sc_process.SC2LaunchError,
    WebSocketException,
    DecodeError,
    OSError,
)
# Game loops that both sides may take to appear.
_MOST_WAITS = 400
# Seconds for a replay to be handed out.
_REPLAY_TIMEOUT = 5.0
_ORDER = attrgetter("unit_type", "pos.x", "pos.y")


class GameLost(Exception):
    """The game has died, does not answer in time, or does not start."""


class Game(StarCraft2Env):
    """SMAC's environment; ``begin`` takes the place of ``reset``.

    Enemies are numbered by type, then from left to right, when an episode starts, like the agents: SMAC numbers them as
    the game happens to list them.

    Args:
        options: SMAC's, and how long the game is waited for.
    """

    # Of SMAC's class.
    agents: dict[int, Any]
    enemies: dict[int, Any]
    episode_limit: int
    _controller: Any
    _obs: Any
    _sc2_proc: Any

    def __init__(self, options: Sc2Options) -> None:
        super().__init__(**options.of_smac())
        self._start_timeout, self._step_timeout = options.start_timeout, options.step_timeout
        self.episode_limit = options.episode_limit or self.episode_limit

    @property
    def started(self) -> bool:
        """Whether a game was started and not ended by us; it may have died."""
        return self._sc2_proc is not None

    @property
    def pid(self) -> int | None:
        """The process of the game, if one runs."""
        return None if self._sc2_proc is None else self._sc2_proc.pid

    def begin(self, seed: int) -> None:
        """Starts an episode, in a new game if none runs.

        Args:
            seed: of a new game, 32 bits.

        Raises:
            GameLost: there is no game afterwards that can be played on.
        """
        if self._sc2_proc is None:
            self._seed, self._episode_count = seed, 0
        try:
            self.reset()
        except _LOST as error:
            raise GameLost(str(error)) from error
        # A reset() in episode 0 launches a game, and adds the enemies to max_reward, each time that it is called.
        self._episode_count = max(self._episode_count, 1)
        health = sum(unit.health_max + unit.shield_max for unit in self.enemies.values())
        self.max_reward = self.n_enemies * self.reward_death_value + self.reward_win + health

    def step(self, actions: Any) -> tuple[float, bool, dict[str, Any]]:
        """SMAC's step.

        Raises:
            GameLost: it did not take place.
        """
        try:
            reward, over, info = super().step(actions)
        except _LOST as error:
            raise GameLost(str(error)) from error
        return reward, over, info

    def full_restart(self) -> None:
        """Called by SMAC where the game was lost: it would go on with another one as if nothing had happened."""
        raise GameLost(str(sys.exc_info()[1]))

    def _launch(self) -> None:
        flags.FLAGS["sc2_timeout"].value = self._start_timeout
        super()._launch()
        self._controller._client._sock.settimeout(self._step_timeout)

    def init_units(self) -> None:
        """Waits until both sides are there, then numbers them: each wait of SMAC's own adds to max_reward again."""
        wanted = {1: self.n_agents, 2: self.n_enemies}
        for _ in range(_MOST_WAITS):
            owners = [unit.owner for unit in self._obs.observation.raw_data.units]
            if all(owners.count(owner) == count for owner, count in wanted.items()):
                break
            self._controller.step(1)
            self._obs = self._controller.observe()
        else:
            found = " and ".join(str(owners.count(owner)) for owner in wanted)
            raise GameLost(f"{self.map_name} should start with {self.n_agents} agents and {self.n_enemies} enemies "
                           f"and has {found}")  # fmt: skip
        super().init_units()
        self.enemies = dict(enumerate(sorted(self.enemies.values(), key=_ORDER)))

    def get_obs_agent(self, agent_id: int) -> Any:
        """SMAC's, as long as ``get_obs_size`` says: with the step's number it has a column of zeros too many."""
        obs = super().get_obs_agent(agent_id)
        return np.delete(obs, -2) if self.obs_timestep_number else obs

    def save_replay(self) -> None:
        """SMAC's, from a game that may have stopped answering."""
        self._controller._client._sock.settimeout(min(self._step_timeout, _REPLAY_TIMEOUT))
        super().save_replay()

    def close(self) -> None:
        """Ends the game's process and removes its temporary folder; also called at the interpreter's exit.

        At once: a game that hangs would hold up whoever asks it to quit.
        """
        game, self._sc2_proc, self._controller = self._sc2_proc, None, None
        if game is None:
            return
        process, folder = game._proc, game._tmp_dir
        if process is not None:
            process.kill()
            process.wait()
        with contextlib.suppress(*_LOST):
            game.close()
        shutil.rmtree(folder, ignore_errors=True)
