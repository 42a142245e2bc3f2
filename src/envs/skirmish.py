"""``skirmish``: SMAC's micromanagement maps on a simulator of our own, with SMAC's contract, batched.

Win rates on it are never those of StarCraft II: docs/environments/skirmish.md says what is simulated and what is not.

Shape legend: B worlds, N allies (agents), E enemies (tasks), U = N + E units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from components.random import load_rng_state, rng_state
from envs.base import TASK_FIELDS, Array, EnvInfo, StepResult, TaskInfo, VectorEnv, check_fields
from envs.combat_costs import COSTS, Battle
from envs.skirmish_entities import AGENT_COLUMNS, TASK_COLUMNS
from envs.skirmish_kernel import TARGETS, Rules
from envs.skirmish_layout import CAPACITIES, CENTER, SIGHT, Layout, Views
from envs.skirmish_maps import MAP_SIDE, Difficulty, LoadedMap, Targets, load_map
from envs.skirmish_rewards import (
    DEAD_ALLIES,
    DEAD_ENEMIES,
    HIGH,
    N_OUTCOME,
    REWARD,
    TERMINATED,
    TRUNCATED,
    WON,
    Rewards,
)
from envs.skirmish_views import show, step_and_show
from envs.skirmish_world import (
    AIMED,
    COOLDOWN,
    FIRST_ATTACK,
    FLIGHT,
    LIFE,
    MAX_LIFE,
    MAX_SHIELD,
    RADIUS,
    SHIELD,
    TARGET,
    X,
    Y,
    ally_order,
    empty_worlds,
    expand,
    make_kinds,
    walkable,
)
from envs.smac_options import SmacOptions
from envs.smac_tasks import CombatOptions, level_reward

# Of everything that a fight depends on: whoever changes what happens in one raises it, and measures the levels anew.
SIMULATOR_VERSION = 1
# Enemies fight allies nearer than this, in map units.
ACQUIRE = 8.0


class SkirmishOptions(SmacOptions, CombatOptions):
    """``env_args`` of ``skirmish``: SMAC's, and how strong the simulated enemies are."""

    map_name: str = Field("3m", description="a map of config/skirmish/maps, or the path of a .yaml file")
    difficulty: Difficulty = Field("medium", description="how strong the enemies are; each map says what it means")
    enemy_cooldown: float | None = Field(
        None, gt=0, description="factor on the time between enemy volleys; null: as the difficulty says"
    )
    enemy_reaction: int | None = Field(None, ge=0, description="game loops that a new target costs an enemy, or null")
    enemy_targets: Targets | None = Field(
        None, description="which agent in reach an enemy shoots; null: as the difficulty says"
    )
    spread: float | None = Field(None, ge=0, description="how far units start from their place, or null: the map's")


class Skirmish(VectorEnv):
    """B skirmishes in one call.

    Args:
        options: map, strength of the enemies, what is observed and rewarded.
        seeds: one seed per environment; its draws depend on nothing else.
        fields: which fields to observe (``EnvInfo.field_shapes``).

    Raises:
        UserError: no such map, or one that cannot be played.
    """

    def __init__(self, options: SkirmishOptions, seeds: Sequence[int], fields: Sequence[str]) -> None:
        given = load_map(options.map_name)
        strength = given.strength(options.difficulty)
        chosen: dict[str, Any] = {"cooldown": options.enemy_cooldown, "reaction": options.enemy_reaction}
        chosen["targets"] = options.enemy_targets
        strength = strength.model_copy(update={key: value for key, value in chosen.items() if value is not None})
        self.n_envs = len(seeds)
        self._seeds = list(seeds)
        self._rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._everyone = np.ones(self.n_envs, dtype=np.bool_)
        self._kinds = make_kinds(given, strength)
        self._n, self._e = len(expand(given.layout.allies)), len(expand(given.layout.enemies))
        self._starts = Starts(given, options.spread)
        self._limit = options.episode_limit or given.layout.limit
        self._rules = Rules(
            cells=walkable(given),
            loops=options.step_mul,
            move_amount=options.move_amount,
            acquire=ACQUIRE,
            reaction=strength.reaction,
            targets=TARGETS[strength.targets],
            limit=self._limit,
        )
        self._layout = self._make_layout(given, options)
        self._rewards = self._make_rewards(options)
        self._obs_is_state = options.obs_instead_of_state
        self._flat_from_levels = options.flat_reward == "levels"
        self.info = self._describe()
        check_fields(self.info, fields)
        self._world = empty_worlds(self.n_envs, self._n, self._e)
        self._ended = np.zeros((self.n_envs, 2), dtype=np.bool_)
        self._outcome = np.zeros((self.n_envs, N_OUTCOME + self._n * self._e), dtype=np.float32)
        self._drawn = np.zeros((self.n_envs, self._starts.n_draws + self._world.draws[0].size))
        self._allocate_observation(fields)
        told, looks = (self._world, self._kinds, self._rules, self._rewards), (self._layout, self._views)
        self._step = partial(step_and_show, *told, *looks, self._outcome, self._ended)
        self._show = partial(show, self._world, self._kinds, self._layout, self._rules, self._views)
        outcome, ended = self._outcome, self._ended
        earned = outcome[:, N_OUTCOME:].reshape(self.n_envs, self._n, self._e)
        extras = {"reward_high": outcome[:, HIGH], "task_reward": earned}
        self._result = StepResult(outcome[:, REWARD], ended[:, TERMINATED], ended[:, TRUNCATED], extras)

    def _make_layout(self, given: LoadedMap, options: SkirmishOptions) -> Layout:
        n, kinds = self._n, self._kinds
        return Layout(
            all_health=options.obs_all_health,
            own_health=options.obs_own_health or options.obs_all_health,
            last_action=options.obs_last_action,
            pathing_grid=options.obs_pathing_grid,
            timestep=options.obs_timestep_number,
            state_last_action=options.state_last_action,
            state_timestep=options.state_timestep_number,
            ally_shield=int(kinds[MAX_SHIELD, :n].any()),
            enemy_shield=int(kinds[MAX_SHIELD, n:].any()),
            type_bits=given.layout.type_bits,
            limit=self._limit,
            capacity=CAPACITIES[options.capacity],
            fixed=options.fixed_capacity,
        )

    def _make_rewards(self, options: SkirmishOptions) -> Rewards:
        enemies = slice(self._n, None)
        health = float(self._kinds[MAX_LIFE, enemies].sum() + self._kinds[MAX_SHIELD, enemies].sum())
        own = float(self._kinds[MAX_LIFE, : self._n].sum() + self._kinds[MAX_SHIELD, : self._n].sum())
        perfect = self._e * options.reward_death_value + options.reward_win + health
        return Rewards(
            sparse=options.reward_sparse,
            only_positive=options.reward_only_positive,
            death_value=options.reward_death_value,
            win=options.reward_win,
            defeat=options.reward_defeat,
            negative_scale=options.reward_negative_scale,
            scale=perfect / options.reward_scale_rate if options.reward_scale else 1.0,
            limit_ends=not options.continuing_episode,
            task_damage=options.task_rewards == "damage",
            exchange=options.high_rewards == "exchange",
            ally_health=own,
            enemy_health=health,
        )

    def _describe(self) -> EnvInfo:
        n, e, layout = self._n, self._e, self._layout
        columns = layout.obs_columns(n, e)
        return EnvInfo(
            n_agents=n,
            n_actions=FIRST_ATTACK + e,
            obs_shape=columns,
            state_shape=n * columns if self._obs_is_state else layout.state_columns(n, e),
            episode_limit=self._limit,
            tasks=TaskInfo(
                n_tasks=e,
                agent_feats=AGENT_COLUMNS + layout.type_bits,
                task_feats=TASK_COLUMNS + layout.type_bits,
                agent_sight=1.0,
                task_sight=1.0,
                first_task_action=FIRST_ATTACK,
                agent_radius=float(self._kinds[RADIUS, :n].max()) / SIGHT,
                half_width=CENTER / SIGHT,
                costs=tuple(COSTS),
            ),
            # Volleys that fly are paid when they leave, not when they arrive as at first.
            version=SIMULATOR_VERSION + int(self._kinds[FLIGHT].any()),
        )

    def _allocate_observation(self, fields: Sequence[str]) -> None:
        b, shapes = self.n_envs, self.info.field_shapes()
        structured = any(name in TASK_FIELDS for name in fields)
        wanted = {"avail_actions", *fields, *(TASK_FIELDS if structured else ())}
        if self._obs_is_state and "state" in fields:
            wanted = (wanted - {"state"}) | {"obs"}
        types = {"avail_actions": np.int32, "agent_alive": np.bool_, "task_alive": np.bool_, "capacity": np.int64}
        self._views = Views(
            *(
                np.zeros((b if name in wanted else 0, *shapes[name]), dtype=types.get(name, np.float32))
                for name in Views._fields
            )
        )
        shown = self._views._asdict()
        if self._obs_is_state:
            shown["state"] = self._views.obs.reshape(len(self._views.obs), -1)
        self._costs = {name: np.zeros((b, *shapes[name]), dtype=np.float32) for name in COSTS if name in fields}
        self.observation = {name: (shown | self._costs)[name] for name in fields}

    @property
    @override
    def seeds(self) -> list[int]:
        return self._seeds

    @override
    def reset(self) -> None:
        world, kinds = self._world, self._kinds
        for b, rng in enumerate(self._rngs):
            rng.random(out=self._drawn[b])
        places, world.goal[:] = self._starts.place(self._drawn)
        world.units[:, [X, Y]] = places.transpose(0, 2, 1)
        world.draws[:] = self._drawn[:, -world.draws[0].size :].reshape(world.draws.shape)
        world.units[:, LIFE], world.units[:, SHIELD], world.units[:, COOLDOWN] = kinds[MAX_LIFE], kinds[MAX_SHIELD], 0.0
        world.orders[:] = 0
        world.orders[:, [TARGET, AIMED]] = -1
        world.last_action[:] = -1
        world.steps[:] = 0
        self._ended[:] = False
        self._outcome[:] = 0.0
        self._show(self._everyone)
        self._write_costs()

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        self._step(actions, active)
        if self._flat_from_levels:
            extras = self._result.extras
            self._result.reward[:] = level_reward(extras["reward_high"], extras["task_reward"])
        self._write_costs()
        return self._result

    def _write_costs(self) -> None:
        if not self._costs:
            return
        units, n = self._world.units, self._n
        places = units[:, [X, Y]].transpose(0, 2, 1)
        left = units[:, LIFE] + units[:, SHIELD]
        full = self._kinds[MAX_LIFE] + self._kinds[MAX_SHIELD]
        battle = Battle(places[:, :n], left[:, :n] > 0, places[:, n:], left[:, n:], left[:, n:] / full[n:])
        for name, field in self._costs.items():
            field[:] = COSTS[name](battle)

    def targets(self) -> Array:
        """[B, E] the agent that each enemy is after, -1 for none: what a script may know, and no field shows."""
        return self._world.orders[:, TARGET, self._n :].copy()

    @override
    def episode_metrics(self) -> dict[str, Array]:
        won = self._outcome[:, WON].astype(np.float64)
        steps, dead = self._world.steps, self._outcome[:, [DEAD_ALLIES, DEAD_ENEMIES]].astype(np.float64)
        over = (dead[:, 0] == self._n) | (dead[:, 1] == self._e)
        return {
            "success": won,
            "battle_won": won,
            "dead_allies": dead[:, 0],
            "dead_enemies": dead[:, 1],
            "out_of_time": (~over).astype(np.float64),
            "steps_to_success": np.where(won > 0, steps, np.nan),
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "rngs": [rng_state(rng) for rng in self._rngs],
            "world": {name: array.copy() for name, array in self._arrays().items()},
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for rng, saved in zip(self._rngs, state["rngs"], strict=True):
            load_rng_state(rng, saved)
        for name, array in self._arrays().items():
            array[:] = state["world"][name]
        self._show(self._everyone)
        self._write_costs()

    def _arrays(self) -> dict[str, Array]:
        return self._world._asdict() | {"ended": self._ended, "outcome": self._outcome}


class Starts:
    """Where an episode's units start and where its enemies go.

    Args:
        given: the map.
        spread: how far units start from their group's place, or ``None`` for the map's.
    """

    def __init__(self, given: LoadedMap, spread: float | None) -> None:
        allies = sorted(expand(given.layout.allies), key=lambda group: ally_order(given.units[group.unit].type))
        enemies = expand(given.layout.enemies)
        kinds = [group.unit for group in allies]
        self._n = len(allies)
        # Far apart, so that sorting by place never mixes kinds.
        self._kind = 4.0 * MAP_SIDE * np.array([kinds.index(kind) for kind in kinds])
        self._places = np.array([group.at for group in (*allies, *enemies)], dtype=np.float64)
        self._spread = given.layout.spread if spread is None else spread
        self._guards = np.array([group.guard for group in enemies])
        self._goal = np.array(given.layout.goal or (0.0, 0.0)).reshape(-1, 2)
        self._cells = walkable(given)
        # Uniform numbers that ``place`` takes from the start of its draws.
        self.n_draws = self._places.size + 1

    def place(self, drawn: Array) -> tuple[Array, Array]:
        """Places [B, U, 2], allies of one kind from left to right as SMAC numbers them, and goals [B, E, 2].

        Args:
            drawn: [B, at least ``n_draws``] in [0, 1).
        """
        offset = drawn[:, : self._places.size].reshape(-1, *self._places.shape)
        places = self._places + self._spread * (2.0 * offset - 1.0)
        cells = np.clip(places, 0, MAP_SIDE - 1).astype(np.int64)
        free = self._cells[cells[..., 0], cells[..., 1]] & (places >= 0).all(-1) & (places < MAP_SIDE).all(-1)
        places = np.where(free[..., None], places, self._places)
        order = np.argsort(places[:, : self._n, 0] + self._kind, axis=1, kind="stable")
        places[:, : self._n] = np.take_along_axis(places[:, : self._n], order[..., None], 1)
        share = drawn[:, self._places.size, None, None]
        goal = self._goal[0] + share * (self._goal[-1] - self._goal[0])
        return places, np.where(self._guards[:, None], places[:, self._n :], goal)
