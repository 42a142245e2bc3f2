"""``sc2``: SMAC's maps in StarCraft II, through the smac package, with enemies as tasks.

An episode in which the game dies or hangs is dropped: ``step`` gives the extra result ``DROPPED`` and nothing
else that counts, and the next ``reset`` starts another game with a seed of its own.

Shape legend: N agents, M enemies (tasks).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from components.errors import RunFailed, UserError
from envs.base import DROPPED, Array, EnvInfo, MultiAgentEnv, TaskInfo
from envs.combat_costs import COSTS, Battle
from envs.skirmish_entities import AGENT_COLUMNS, TASK_COLUMNS
from envs.skirmish_layout import CENTER, SIGHT
from envs.skirmish_maps import load_map, map_names
from envs.skirmish_volleys import LEAST_DAMAGE
from envs.skirmish_world import FIRST_ATTACK, NORTH, ally_order, expand
from envs.smac_tasks import VolleyDamage, capacities, high_reward, level_reward, task_rewards, volleys_needed
from envs.starcraft2_options import Sc2Options
from envs.starcraft2_preflight import check

if TYPE_CHECKING:
    from envs.starcraft2_game import Game

_LOG = logging.getLogger(__name__)
# Columns of the table of units.
_X, _Y, _LIFE, _SHIELD, _MAX_LIFE, _MAX_SHIELD, _LOADED = range(7)


class StarCraft2(MultiAgentEnv):
    """One game of StarCraft II.

    Enemies are numbered by type, then from left to right, when an episode starts (``Game``): columns and attack actions
    are in that order. On maps with medivacs (MMM) the attack actions of a medivac heal agents, as in SMAC: there,
    assignments to enemies mean nothing to it.

    A running game cannot be saved. ``state_dict`` holds the seed's count, so that a resumed run plays new episodes in a
    new game whose seed was not used before: it does not continue exactly.

    Args:
        options: map, game, what is observed and rewarded.
        seed: of the games; that of the first derives from it, and so do those after a restart.

    Attributes:
        game_seeds: the seed of each game that this object has started, 32 bits each.
        restarts: games that were lost.

    Raises:
        UserError: a package, the game or the map is missing (``envs.starcraft2_preflight``).
    """

    def __init__(self, options: Sc2Options, seed: int) -> None:
        check(options)
        # Only now is it known that the packages are there.
        from envs.starcraft2_game import Game

        self._options, self._seed = options, seed
        self._damage = _volley_damage(options.map_name) if options.capacity == "shots_to_kill" else None
        self._game: Game = Game(options)
        self.info = self._describe()
        self.game_seeds: list[int] = []
        self.restarts = 0
        self._games = self._lost_in_a_row = self._lost_since = 0
        self._steps = 0
        self._under_way = False
        self._observation: dict[str, Array] = {}
        self._metrics = self._measure(None)

    def _describe(self) -> EnvInfo:
        game = self._game
        return EnvInfo(
            n_agents=game.n_agents,
            n_actions=game.n_actions,
            obs_shape=game.get_obs_size(),
            state_shape=game.get_state_size(),
            episode_limit=game.episode_limit,
            tasks=TaskInfo(
                n_tasks=game.n_enemies,
                agent_feats=AGENT_COLUMNS + game.unit_type_bits,
                task_feats=TASK_COLUMNS + game.unit_type_bits,
                agent_sight=1.0,
                task_sight=1.0,
                first_task_action=FIRST_ATTACK,
                half_width=CENTER / SIGHT,
                costs=tuple(COSTS),
            ),
            external=True,
        )

    @property
    def pid(self) -> int | None:
        """The process of the game, if one runs."""
        return self._game.pid

    @override
    def reset(self) -> dict[str, Array]:
        """Starts an episode; where nobody has moved since the last call, it is still the same one.

        Raises:
            RunFailed: the game was lost ``max_restarts`` times in a row and once more.
        """
        if self._under_way and self._steps == 0:
            return self._observation
        self._under_way = False
        while not self._begin():
            pass
        self._steps, self._under_way = 0, True
        self._observation = self._observe()
        return self._observation

    def _begin(self) -> bool:
        """Whether an episode has started."""
        from envs.starcraft2_game import GameLost

        if not self._game.started:
            words = np.random.SeedSequence([self._seed, self._games]).generate_state(1)
            self.game_seeds.append(int(words[0]))
            self._games += 1
        try:
            self._game.begin(self.game_seeds[-1])
        except GameLost as lost:
            self._lose(lost)
            return False
        return True

    def _lose(self, lost: Exception) -> None:
        """Ends a lost game, or the run if that happens too often."""
        self._game.close()
        self.restarts += 1
        self._lost_since += 1
        self._lost_in_a_row += 1
        told = f"StarCraft II on {self._options.map_name} (game seed {self.game_seeds[-1]}): {lost}"
        if self._lost_in_a_row > self._options.max_restarts:
            raise RunFailed(
                f"the game was lost {self._lost_in_a_row} times in a row (env_args.max_restarts = "
                f"{self._options.max_restarts}), the last time: {told}"
            )
        _LOG.warning("%s; the episode is dropped and a new game started", told)

    @override
    def step(self, actions: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Array]]:
        """One step. Where the game was lost in it, ``extras[DROPPED]`` is true, and all else means nothing.

        Raises:
            RuntimeError: no episode is under way.
            RunFailed: as ``reset``.
        """
        if not self._under_way:
            raise RuntimeError("step() without an episode: it is over or was dropped, and reset() must come first")
        from envs.starcraft2_game import GameLost

        before = self._left()
        try:
            reward, over, info = self._game.step(actions)
        except GameLost as lost:
            return self._drop(lost)
        self._steps += 1
        self._observation = self._observe()
        truncated = bool(info.get("episode_limit", False))
        won = bool(info.get("battle_won", False))
        if over:
            self._metrics = self._measure(won)
            self._under_way = False
            self._lost_in_a_row = self._lost_since = 0
        left, full = self._left(), self._units()[:, _MAX_LIFE] + self._units()[:, _MAX_SHIELD]
        high = high_reward(self._options.high_rewards, won, before, left, full, self.info.n_agents)
        rewards = {
            "reward_high": np.array(high, dtype=np.float32),
            "task_reward": self._task_reward(before, left, full, actions),
        }
        if self._options.flat_reward == "levels":
            reward = float(level_reward(rewards["reward_high"], rewards["task_reward"]))
        ended = over and not truncated, truncated
        return self._observation, float(reward), *ended, rewards

    def _drop(self, lost: Exception) -> tuple[dict[str, Array], float, bool, bool, dict[str, Array]]:
        self._under_way = False
        self._lose(lost)
        self._metrics = dict.fromkeys(self._metrics, math.nan) | {"restarts": float(self._lost_since)}
        shape = (self.info.n_agents, self._game.n_enemies)
        nothing = {"reward_high": np.zeros((), dtype=np.float32), "task_reward": np.zeros(shape, dtype=np.float32)}
        return self._observation, 0.0, False, False, nothing | {DROPPED: np.array(True)}

    def _task_reward(self, before: Array, left: Array, full: Array, actions: Array) -> Array:
        """[N, M] what each agent would earn for each enemy; from health, as smac's counts of deaths are not kept up."""
        n = self.info.n_agents
        before, left = before[n:], left[n:]
        attacked = np.asarray(actions)[:, None] == FIRST_ATTACK + np.arange(len(left))
        lost = np.maximum(before - left, 0.0) / full[n:]
        return task_rewards(self._options.task_rewards, lost, (before > 0) & (left <= 0), attacked)

    def _units(self) -> Array:
        """[N + M, 7] agents, then enemies."""
        game = self._game
        rows = [
            (unit.pos.x, unit.pos.y, unit.health, unit.shield, unit.health_max, unit.shield_max,
             unit.energy if unit.unit_type == game.medivac_id else unit.weapon_cooldown)
            for unit in (*game.agents.values(), *game.enemies.values())
        ]  # fmt: skip
        return np.array(rows)

    def _left(self) -> Array:
        """[N + M] life and shield; 0 for the dead, of whom smac keeps the last shield."""
        units = self._units()
        return np.where(units[:, _LIFE] > 0, units[:, _LIFE] + units[:, _SHIELD], 0.0)

    def _observe(self) -> dict[str, Array]:
        game, n, units = self._game, self.info.n_agents, self._units()
        alive, left = units[:, _LIFE] > 0, self._left()
        obs = np.array(game.get_obs(), dtype=np.float32)
        avail = np.array(game.get_avail_actions(), dtype=np.int32)
        volleys = None
        if self._damage is not None:
            volleys = volleys_needed(self._damage, alive[:n], units[n:, _LIFE], units[n:, _SHIELD])
        capacity = capacities(self._options, alive[:n], alive[n:], volleys)
        agent_feats, task_feats = self._features(units, avail, capacity)
        battle = Battle(
            *(units[None, :n, :2], alive[None, :n], units[None, n:, :2], left[None, n:]),
            left[None, n:] / (units[n:, _MAX_LIFE] + units[n:, _MAX_SHIELD]),
        )
        return {
            "obs": obs,
            "state": obs.ravel() if game.obs_instead_of_state else np.asarray(game.get_state(), dtype=np.float32),
            "avail_actions": avail,
            "agent_feats": agent_feats,
            "task_feats": task_feats,
            "agent_alive": alive[:n],
            "task_alive": alive[n:],
            "capacity": capacity,
            **{name: cost(battle)[0].astype(np.float32) for name, cost in COSTS.items()},
        }

    def _features(self, units: Array, avail: Array, capacity: Array) -> tuple[Array, Array]:
        """Features of agents and tasks, with the columns of ``skirmish``; those of the dead are 0."""
        game, n = self._game, self.info.n_agents
        bits = game.unit_type_bits
        both = (*game.agents.values(), *game.enemies.values())
        slowest = np.array([game.unit_max_cooldown(unit) for unit in game.agents.values()])
        shared = np.stack(
            [
                (units[:, _X] - CENTER) / SIGHT,
                (units[:, _Y] - CENTER) / SIGHT,
                units[:, _LIFE] / units[:, _MAX_LIFE],
                units[:, _SHIELD] / np.maximum(units[:, _MAX_SHIELD], 1.0),
            ],
            axis=1,
        )
        types = np.zeros((len(both), bits))
        if bits:
            columns = [game.get_unit_type_id(unit, k < n) for k, unit in enumerate(both)]
            types[np.arange(len(both)), columns] = 1.0
        loaded = (units[:n, _LOADED] / slowest)[:, None]
        agents = np.hstack([shared[:n], loaded, avail[:, NORTH:FIRST_ATTACK], types[:n]])
        tasks = np.hstack([shared[n:], (capacity / n)[:, None], types[n:]])
        dead = units[:, _LIFE] <= 0
        agents[dead[:n]], tasks[dead[n:]] = 0.0, 0.0
        return agents.astype(np.float32), tasks.astype(np.float32)

    def _measure(self, won: bool | None) -> dict[str, float]:
        """Metrics of the episode that has just ended; ``None``: there was none yet."""
        n, m = self.info.n_agents, self._game.n_enemies
        dead = self._left() <= 0 if won is not None else np.zeros(n + m, dtype=np.bool_)
        dead_allies, dead_enemies = int(dead[:n].sum()), int(dead[n:].sum())
        return {
            "success": float(won or 0),
            "battle_won": float(won or 0),
            "dead_allies": float(dead_allies),
            "dead_enemies": float(dead_enemies),
            "out_of_time": float(dead_allies < n and dead_enemies < m),
            "steps_to_success": float(self._steps) if won else math.nan,
            "restarts": float(self._lost_since),
        }

    @override
    def episode_metrics(self) -> dict[str, float]:
        """As ``skirmish``, and ``restarts``: games lost since the last whole episode; a dropped one has only that."""
        return self._metrics

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"games": self._games, "restarts": self.restarts}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with the seeds; the episode that was under way is gone, and ``reset`` must come before ``step``."""
        self._game.close()
        self._games, self.restarts = state["games"], state["restarts"]
        self._under_way = False

    @override
    def close(self) -> None:
        if self._options.save_replays and self._game.pid is not None:
            # A replay that cannot be written is no reason to leave the game running.
            with contextlib.suppress(Exception):
                self._game.save_replay()
        self._game.close()
        self._under_way = False


def _volley_damage(map_name: str) -> VolleyDamage:
    """What a volley does on a map whose units are known.

    Raises:
        UserError: they are not.
    """
    if map_name not in map_names():
        raise UserError(
            f"capacity: shots_to_kill needs to know what the weapons of a map do; that is known of "
            f"{', '.join(map_names())}, not of {map_name!r}. Choose capacity: paper, none or fixed"
        )
    given = load_map(map_name)
    agents = [given.units[group.unit] for group in expand(given.layout.allies)]
    agents.sort(key=lambda unit: ally_order(unit.type))
    # As the game numbers them: within a type all are the same.
    enemies = sorted((given.units[group.unit] for group in expand(given.layout.enemies)), key=lambda unit: unit.type)
    hits = np.array([[agent.hits] for agent in agents])
    hit = np.array([[agent.damage + agent.bonus_armored * enemy.armored for enemy in enemies] for agent in agents])
    armor = np.array([enemy.armor for enemy in enemies])
    return VolleyDamage(on_shield=hits * hit, on_life=hits * np.maximum(hit - armor, LEAST_DAMAGE))
