"""The simulator: what a volley does, how units move, what SMAC's contract says about it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.skirmishes import ATTACK, EAST, NORTH, SOUTH, STOP, WEST, start, step, units, win, write_map

from envs.skirmish_maps import DIFFICULTIES, map_names
from envs.skirmish_world import TARGET, VOLLEYS
from envs.smac_tasks import high_reward, task_rewards

# SMAC's own numbers: length of observation and state, actions, limit.
SMAC_SIZES = {
    "3m": (30, 48, 9, 60),
    "8m": (80, 168, 14, 120),
    "2m_vs_1z": (16, 26, 7, 150),
    "3s_vs_5z": (48, 68, 11, 250),
    "3s_vs_3z": (36, 54, 9, 150),
    "5m_vs_6m": (55, 98, 12, 70),
    "2s3z": (80, 120, 11, 120),
    "3s5z": (128, 216, 14, 150),
}


@pytest.mark.parametrize("name", SMAC_SIZES)
def test_sizes_are_those_of_smac(name):
    info = start(name).info
    assert (info.obs_shape, info.state_shape, info.n_actions, info.episode_limit) == SMAC_SIZES[name]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("name", map_names())
def test_every_map_is_played(name, difficulty):
    env = start(name, difficulty=difficulty)
    step(env, *[STOP] * env.info.n_agents)
    assert env.observation["agent_alive"].all()


class TestVolleys:
    def duel(self, tmp_path, ally, enemy, apart=5.0, **more):
        path = write_map(tmp_path, [(ally, 10, 16)], [(enemy, 10 + apart, 16)], guard=True)
        return start(path, **{"enemy_reaction": 1000, **more})

    def test_armor_protects_the_life(self, tmp_path):
        env = self.duel(tmp_path, "marine", "spine_crawler")
        step(env, ATTACK)
        assert units(env)[1][1] == 300 - (6 - 2)

    def test_shields_come_first_and_have_no_armor(self, tmp_path):
        env = self.duel(tmp_path, "marine", "zealot")
        for _ in range(5):
            step(env, ATTACK)
        _, life, shield = units(env)
        shots = int(env._world.orders[0, VOLLEYS, 0])
        assert (life[1], shield[1]) == (100, 50 - 6 * shots)

    def test_a_hit_that_breaks_the_shield_goes_on_into_the_life(self, tmp_path):
        env = self.duel(tmp_path, "marine", "zealot")
        env._world.units[0, 3, 1] = 2.0
        step(env, ATTACK)
        assert units(env)[1][1] == 100 - (6 - 2 - 1)

    def test_bonus_against_armored(self, tmp_path):
        env = self.duel(tmp_path, "stalker", "stalker")
        step(env, ATTACK)
        assert units(env)[2][1] == 80 - 18

    def test_each_hit_of_a_volley_loses_armor(self, tmp_path):
        env = self.duel(tmp_path, "zealot", "spine_crawler", apart=1.2)
        step(env, ATTACK)
        assert units(env)[1][1] == 300 - 2 * (8 - 2)

    def test_both_die_at_once_and_nobody_wins(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 16)], [("marine", 14, 16)])
        env = start(path)
        env._world.units[0, 2] = 1.0
        result = step(env, ATTACK)
        assert result.terminated[0]
        assert not result.extras["reward_high"][0]
        assert units(env)[1].tolist() == [0.0, 0.0]
        assert result.reward[0] == pytest.approx((1 + 10) / ((10 + 200 + 45) / 20))

    def test_a_missile_arrives_later(self, tmp_path):
        path = write_map(
            tmp_path, [("marine", 10, 16)], [("marine", 15, 16)], guard=True, units="{marine: {flight: 6}}"
        )
        env = start(path, enemy_reaction=1000, step_mul=1)
        lives = []
        for _ in range(8):
            step(env, ATTACK)
            lives.append(units(env)[1][1])
        assert lives == [45] * 6 + [39] * 2

    def test_a_missile_for_a_dead_unit_is_lost(self, tmp_path):
        marines = [("marine", 10, 15.5), ("marine", 10, 16.5)]
        path = write_map(tmp_path, marines, [("marine", 14, 16)], guard=True, units="{marine: {flight: 6}}")
        env = start(path, enemy_reaction=1000)
        env._world.units[0, 2, 2] = 1.0
        assert step(env, ATTACK, ATTACK).reward[0] == pytest.approx((1 + 10 + 200) / (255 / 20))

    def test_a_missile_is_paid_when_it_leaves(self, tmp_path):
        path = write_map(
            tmp_path, [("marine", 10, 16)], [("marine", 15, 16)], guard=True, units="{marine: {flight: 6}}"
        )
        env = start(path, enemy_reaction=1000, step_mul=1)
        earned = [float(step(env, ATTACK).extras["task_reward"][0, 0, 0]) for _ in range(8)]
        assert earned == pytest.approx([6 / 45] + [0.0] * 7)

    def test_who_dooms_an_enemy_is_paid_for_its_death(self, tmp_path):
        marines = [("marine", 10, 15.5), ("marine", 10, 16.5), ("marine", 10, 17.5)]
        path = write_map(tmp_path, marines, [("marine", 14, 16)], guard=True, units="{marine: {flight: 6}}")
        env = start(path, enemy_reaction=1000, step_mul=1)
        env._world.units[0, 2, 3] = 9.0
        first = step(env, ATTACK, ATTACK, STOP).extras["task_reward"][0, :, 0].copy()
        late = [step(env, STOP, STOP, ATTACK).extras["task_reward"][0, :, 0].copy() for _ in range(7)]
        assert first.tolist() == pytest.approx([0.5 * (1 + 9 / 45)] * 2 + [0.0])
        assert not np.any(late)
        assert units(env)[1][3] == 0.0

    def test_the_period_varies_around_the_weapons_own(self, tmp_path):
        env = self.duel(tmp_path, "marine", "spine_crawler")
        steps = 0
        while units(env)[1][1] > 100:
            step(env, ATTACK)
            steps += 1
        assert 8 * steps / env._world.orders[0, VOLLEYS, 0] == pytest.approx(16 * 0.861 + 1.5 + 0.5, abs=0.5)

    def test_weaker_enemies_shoot_less_often(self, tmp_path):
        def volleys(**strength):
            path = write_map(tmp_path, [("zealot", 10, 16)], [("marine", 14, 16)], guard=True)
            env = start(path, **strength)
            for _ in range(20):
                step(env, STOP)
            return int(env._world.orders[0, VOLLEYS, 1])

        assert volleys(enemy_cooldown=1.0) > 1.8 * volleys(enemy_cooldown=2.0)

    def test_a_new_target_costs_the_reaction_time(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 16)], [("marine", 14, 16)], guard=True)
        env = start(path, enemy_reaction=12)
        step(env, STOP)
        assert units(env)[1][0] == 45
        step(env, STOP)
        assert units(env)[1][0] == 39


class TestRecovery:
    def test_shields_come_back_after_ten_calm_seconds(self, tmp_path):
        path = write_map(tmp_path, [("stalker", 10, 16)], [("marine", 30, 16)], guard=True, limit=100)
        env = start(path)
        env._world.units[0, 3, 0] = 10.0
        for _ in range(20):
            step(env, STOP)
        assert units(env)[2][0] == 10.0
        for _ in range(2):
            step(env, STOP)
        assert units(env)[2][0] == pytest.approx(12.0)

    def test_the_dead_stay_dead(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 16), ("marine", 5, 16)], [("zergling", 30, 16)], guard=True)
        env = start(path)
        env._world.units[0, 2, 0] = 0.0
        for _ in range(3):
            step(env, 0, STOP)
        assert units(env)[1][0] == 0.0
        assert env.observation["avail_actions"][0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
        assert not env.observation["obs"][0, 0].any()
        assert env.observation["agent_alive"][0].tolist() == [False, True]


class TestMoves:
    @pytest.mark.parametrize(("action", "way"), [(NORTH, (0, 1)), (SOUTH, (0, -1)), (EAST, (1, 0)), (WEST, (-1, 0))])
    def test_half_a_second_at_the_units_speed(self, tmp_path, action, way):
        env = start(write_map(tmp_path, [("stalker", 10, 16)], [("marine", 30, 16)], guard=True))
        step(env, action)
        assert units(env)[0][0] == pytest.approx(np.array([10, 16]) + 2.9531 / 2 * np.array(way))

    def test_a_move_ends_where_it_was_sent(self, tmp_path):
        env = start(write_map(tmp_path, [("stalker", 10, 16)], [("marine", 30, 16)], guard=True), step_mul=32)
        step(env, EAST)
        assert units(env)[0][0] == pytest.approx([12, 16])

    def test_nobody_leaves_the_arena(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 24)], [("marine", 30, 8)], guard=True, arena="[[0, 7, 32, 25]]")
        env = start(path)
        assert env.observation["avail_actions"][0, 0, [NORTH, SOUTH]].tolist() == [0, 1]
        for _ in range(5):
            step(env, NORTH)
        assert 24 <= units(env)[0][0, 1] < 25

    def test_units_push_each_other_apart(self, tmp_path):
        marines = [("marine", 10, 16), ("marine", 10, 16), ("marine", 10.1, 16)]
        env = start(write_map(tmp_path, marines, [("marine", 30, 16)], guard=True))
        for _ in range(8):
            step(env, STOP, STOP, STOP)
        places = units(env)[0][:3]
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(3, 1)]
        assert (apart > 0.74).all()

    def test_what_cannot_move_is_not_pushed(self, tmp_path):
        env = start(write_map(tmp_path, [("marine", 10, 16)], [("spine_crawler", 10.5, 16)], guard=True))
        step(env, STOP)
        assert units(env)[0][1].tolist() == [10.5, 16]

    def test_an_attack_walks_until_its_weapon_reaches(self, tmp_path):
        env = start(write_map(tmp_path, [("marine", 10, 16)], [("zergling", 15.95, 16)], guard=True), enemy_reaction=9)
        assert env.observation["avail_actions"][0, 0, ATTACK]
        step(env, ATTACK)
        assert units(env)[1][1] < 35


class TestEnemies:
    def test_attackers_go_to_their_goal_and_guards_stay(self, tmp_path):
        path = write_map(tmp_path, [("marine", 2, 30)], [("marine", 30, 16)])
        env = start(path)
        step(env, STOP)
        assert units(env)[0][1] == pytest.approx([30 - 2.25 / 2, 16])
        env = start(write_map(tmp_path, [("marine", 2, 30)], [("marine", 30, 16)], guard=True))
        step(env, STOP)
        assert units(env)[0][1].tolist() == [30, 16]

    def fighters(self, tmp_path, **options):
        """Two marines in reach of a guard, the nearer one with more life."""
        path = write_map(tmp_path, [("marine", 10, 16), ("marine", 11, 16)], [("marine", 15, 16)], guard=True)
        env = start(path, **options)
        env._world.units[0, 2, 0] = 20.0
        return env

    def test_they_shoot_the_nearest(self, tmp_path):
        env = self.fighters(tmp_path)
        step(env, STOP, STOP)
        assert units(env)[1][:2].tolist() == [20, 39]

    def test_or_the_weakest(self, tmp_path):
        env = self.fighters(tmp_path, enemy_targets="lowest_life")
        step(env, STOP, STOP)
        assert units(env)[1][:2].tolist() == [14, 45]

    def test_or_any(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 16), ("marine", 11, 16)], [("marine", 15, 16)], guard=True)
        env = start(path, n_envs=200, enemy_targets="random")
        step(env, STOP, STOP)
        first = (env._world.units[:, 2, 0] < 45).mean()
        assert 0.35 < first < 0.65

    def test_a_target_is_kept_while_in_reach(self, tmp_path):
        env = self.fighters(tmp_path)
        step(env, STOP, STOP)
        env._world.units[0, 0, 0] = 14.0
        step(env, STOP, STOP)
        assert env._world.orders[0, TARGET, 2] == 1

    def test_the_goal_of_2m_vs_1z_lies_between_the_marines(self):
        goals = start("2m_vs_1z", n_envs=100)._world.goal[:, 0]
        assert (goals[:, 1] == 12).all()
        assert 13 <= goals[:, 0].min() < 14.5
        assert 17.5 < goals[:, 0].max() <= 19


class TestNumbering:
    def test_agents_are_numbered_from_left_to_right(self):
        env = start("8m", n_envs=20)
        assert (np.diff(env._world.units[:, 0, :8], axis=1) >= 0).all()

    def test_stalkers_come_before_zealots_among_agents_only(self):
        env = start("2s3z")
        own = env.observation["obs"][0][:, -2:]
        assert own.tolist() == [[1, 0]] * 2 + [[0, 1]] * 3
        # SMAC shows the enemies' types in the order of the game's numbers: zealot 73, stalker 74.
        assert env.observation["task_feats"][0][:, -2:].tolist() == [[0, 1]] * 2 + [[1, 0]] * 3


class TestRewards:
    def test_a_perfect_battle_is_worth_twenty(self):
        env = start("3m", n_envs=10, enemy_cooldown=1000.0)
        assert win(env) == pytest.approx(20.0, abs=1e-4)
        assert env.episode_metrics()["battle_won"].all()

    def test_sparse(self):
        env = start("3m", enemy_cooldown=1000.0, reward_sparse=True, reward_scale=False)
        assert win(env) == pytest.approx(1.0)

    def test_losses_count_when_asked_for(self, tmp_path):
        path = write_map(tmp_path, [("marine", 10, 16), ("marine", 9, 17)], [("marine", 14, 16)], guard=True)
        env = start(path, reward_only_positive=False, reward_scale=False)
        env._world.units[0, 2, 1] = 5.0
        assert env._world.units[0, 0, 1] == 10
        result = step(env, STOP, STOP)
        assert result.reward[0] == pytest.approx(-0.5 * (5 + 10))

    def test_out_of_time_is_the_end_unless_episodes_continue(self, tmp_path):
        path = write_map(tmp_path, [("marine", 5, 16)], [("marine", 30, 16)], guard=True, limit=2)
        for continuing in (False, True):
            env = start(path, continuing_episode=continuing)
            step(env, STOP)
            result = step(env, STOP)
            assert (bool(result.terminated[0]), bool(result.truncated[0])) == (not continuing, continuing)
            assert env.episode_metrics()["out_of_time"][0] == 1

    def two_on_two(self, tmp_path, **options):
        path = write_map(
            tmp_path, [("marine", 10, 16), ("marine", 10, 17)], [("marine", 14, 16), ("marine", 14, 17)], guard=True
        )
        return start(path, enemy_reaction=1000, **options)

    def test_agents_earn_what_their_attacks_do(self, tmp_path):
        env = self.two_on_two(tmp_path, task_rewards="damage")
        first = step(env, ATTACK, STOP)
        assert first.extras["task_reward"][0].tolist() == [pytest.approx([6 / 45, 0]), [0, 0]]
        assert first.agent_reward[0].tolist() == pytest.approx([6 / 45, 0])
        assert step(env, STOP, STOP).extras["task_reward"].sum() == 0
        both = step(env, ATTACK, ATTACK).extras["task_reward"][0]
        assert both[0].tolist() == both[1].tolist() == pytest.approx([6 / 45, 0])
        env._world.units[0, 2, 2] = 1.0
        earned = sum(step(env, ATTACK, ATTACK).extras["task_reward"][0] for _ in range(3))
        assert earned[:, 0] == pytest.approx([0.5 * (1 + 1 / 45)] * 2)

    def test_the_flat_reward_can_be_made_of_what_both_levels_earn(self, tmp_path):
        flat, smac = (
            self.two_on_two(tmp_path, enemy_cooldown=1.0, reward_sparse=True, **given)
            for given in ({"flat_reward": "levels"}, {})
        )
        total = 0.0
        for _ in range(12):
            result, usual = step(flat, ATTACK, ATTACK), step(smac, ATTACK, ATTACK)
            assert usual.reward[0] == usual.terminated[0] * (1 if usual.extras["reward_high"][0] > 0 else -1)
            earned = result.extras["task_reward"][0].sum()
            assert result.reward[0] == pytest.approx(0.5 * result.extras["reward_high"][0] + 0.5 * earned / 2, abs=1e-6)
            total += abs(result.reward[0])
            if result.terminated[0]:
                break
        assert total > 0

    def test_agents_earn_one_for_the_death_of_their_enemy(self, tmp_path):
        env = self.two_on_two(tmp_path, task_rewards="kill")
        env._world.units[0, 2, 2] = 7.0
        assert step(env, ATTACK, STOP).extras["task_reward"].sum() == 0
        earned = sum(step(env, ATTACK, STOP).extras["task_reward"][0] for _ in range(3))
        assert earned.tolist() == [[1, 0], [1, 0]]

    @pytest.mark.parametrize("rule", ["win", "exchange"])
    def test_the_rules_of_the_game_are_those_of_the_simulator(self, rule):
        env, rng = start("3m", task_rewards="damage", high_rewards=rule, enemy_cooldown=3.0), np.random.default_rng(0)
        full, seen = np.full(6, 45.0), 0
        for _ in range(100):
            before = env._world.units[0, 2:4].sum(0)
            avail = env.observation["avail_actions"][0]
            actions = [ATTACK if row[ATTACK] else rng.choice(np.flatnonzero(row)) for row in avail]
            result = step(env, *actions)
            left = env._world.units[0, 2:4].sum(0)
            attacked = np.array(actions)[:, None] == ATTACK + np.arange(3)
            lost, died = np.maximum(before - left, 0)[3:] / 45, (before > 0)[3:] & (left <= 0)[3:]
            expected = task_rewards("damage", lost, died, attacked)
            np.testing.assert_allclose(result.extras["task_reward"][0], expected, atol=1e-6)
            won = bool((left[3:] <= 0).all() and (left[:3] > 0).any())
            high = high_reward(rule, won, before, left, full, 3)
            assert result.extras["reward_high"][0] == pytest.approx(high, abs=1e-6)
            seen += bool(expected.any())
            if result.terminated[0]:
                env.reset()
        assert seen > 5

    def test_the_exchange_is_half_health_half_units(self, tmp_path):
        env = self.two_on_two(tmp_path, high_rewards="exchange")
        assert step(env, ATTACK, STOP).extras["reward_high"][0] == pytest.approx(0.5 * 6 / 90)
        env._world.units[0, 2, 2:] = 1.0, 0.0
        total = sum(float(step(env, ATTACK, STOP).extras["reward_high"][0]) for _ in range(2))
        # One of the two enemies dies of its last point of life, and none of the agents.
        assert total == pytest.approx(0.5 * (1 / 90 + 1 / 2), abs=1e-5)


class TestCapacity:
    def capacity(self, name, **options):
        return start(name, **options).observation["capacity"][0].tolist()

    def test_rules(self):
        assert self.capacity("8m") == [4] * 8
        assert self.capacity("3m") == [2] * 3
        assert self.capacity("8m", capacity="none") == [8] * 8
        assert self.capacity("8m", capacity="fixed", fixed_capacity=3) == [3] * 8
        assert self.capacity("8m", capacity="shots_to_kill") == [8] * 8
        assert self.capacity("6s_vs_16zg_missiles", capacity="shots_to_kill") == [3] * 16

    def test_raised_where_it_cannot_hold_the_agents(self):
        assert self.capacity("2m_vs_1z") == [2]
        assert self.capacity("8m_vs_9m", capacity="fixed", fixed_capacity=1) == [1] * 9
        assert self.capacity("3s_vs_3z", capacity="fixed", fixed_capacity=1) == [1] * 3

    def test_follows_the_living(self):
        env = start("8m")
        env._world.units[0, 2, 8:14] = 0.0
        step(env, *[STOP] * 8)
        assert env.observation["capacity"][0].tolist() == [0] * 6 + [4, 4]


def test_the_state_may_be_all_observations():
    env = start("3m", obs_instead_of_state=True, fields=("state", "obs"))
    assert env.observation["state"].shape == (1, 90)
    assert (env.observation["state"][0] == env.observation["obs"][0].ravel()).all()


def test_plain_python_plays_the_same_battle():
    code = (
        "import sys; sys.path[:0] = ['src', 'tests']\n"
        "from support.skirmishes import *\n"
        "env = start('2s3z', n_envs=2)\n"
        "for _ in range(14): step(env, 4, 4, 4, 4, 4)\n"
        "print(repr(env._world.units.tobytes().hex()), env.observation['obs'].tobytes().hex())\n"
    )
    root = Path(__file__).resolve().parents[2]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "NUMBA_DISABLE_JIT": disable},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disable in ("0", "1")
    ]
    assert outputs[0] == outputs[1]
