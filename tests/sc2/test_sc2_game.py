"""The ``sc2`` environment and unmodified smac and pysc2 against the stand-in game; needs tests/sc2/requirements.txt."""

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import sc2_game
from support.sc2_processes import check_nothing_is_left, games, install, require_packages, strike

from components.errors import RunFailed
from envs.base import DROPPED, derive_seeds
from envs.checked_play import Player
from envs.skirmish import Skirmish, SkirmishOptions
from envs.skirmish_maps import load_map
from envs.skirmish_world import expand
from envs.starcraft2 import StarCraft2, _volley_damage
from envs.starcraft2_options import Sc2Options
from envs.vector import SerialEnvs, in_process, in_workers
from runners.episode_runner import ParallelRunnerOptions

pytestmark = pytest.mark.sc2
require_packages()
portpicker = pytest.importorskip("portpicker")

# A game that hangs is noticed after this many seconds.
PATIENCE = 1.0
# Mean return of random play in `skirmish` over 20 episodes has a standard error of about a tenth.
RETURNS = {"3m": 1.9, "8m": 2.2, "2m_vs_1z": 1.4, "3s_vs_5z": 3.6, "2s3z": 5.0}


@pytest.fixture(scope="module", params=["3m", "2m_vs_1z", "2s3z", "3s_vs_5z"])
def shared(request, tmp_path_factory):
    """A running game for several tests: to start one takes pysc2 more than a second."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(folder, monkeypatch)
        env = StarCraft2(Sc2Options(map_name=request.param, state_last_action=False, start_timeout=60), 3)
        env.reset()
        yield env
    pid, running = env.pid, games(folder)
    env.close()
    assert (env.restarts, len(env.game_seeds), running) == (0, 1, [pid])
    check_nothing_is_left(folder)


@pytest.fixture
def make():
    """Makes environments that are closed after the test."""
    made = []

    def build(name="3m", seed=3, **options):
        env = StarCraft2(Sc2Options(map_name=name, **{"step_timeout": PATIENCE, "start_timeout": 60, **options}), seed)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


def legal(observation, rng):
    """A random legal action of each agent."""
    return np.array([rng.choice(np.flatnonzero(row)) for row in observation["avail_actions"]])


def play(env, rng, most=1000):
    """Plays an episode: (sum of rewards, steps, whether it ended as episodes do)."""
    observation, total = env.reset(), 0.0
    for t in range(most):
        observation, reward, terminated, truncated, extras = env.step(legal(observation, rng))
        if DROPPED in extras:
            assert (reward, terminated, truncated) == (0.0, False, False)
            assert not extras["reward_high"]
            assert not extras["task_reward"].any()
            return total, t, False
        total += reward
        if terminated or truncated:
            return total, t + 1, True
    return total, most, False


def play_many(env, rng, count):
    """Whether each of so many episodes ended as episodes do."""
    return [play(env, rng)[2] for _ in range(count)]


def fight(observation):
    """Everybody attacks the first enemy in reach, or waits."""
    avail = observation["avail_actions"]
    attack = avail[:, 6:].argmax(-1) + 6
    return np.where(avail[:, 6:].any(-1), attack, avail[:, :2].argmax(-1))


@pytest.mark.parametrize("name", ["3m", "8m", "2s3z"])
def test_unmodified_smac_plays_whole_episodes(name):
    from smac.env import StarCraft2Env

    env, rng = StarCraft2Env(map_name=name, seed=1), np.random.default_rng(0)
    returns = []
    for _ in range(10):
        env.reset()
        total, over = 0.0, False
        while not over:
            reward, over, info = env.step([rng.choice(np.flatnonzero(row)) for row in env.get_avail_actions()])
            total += reward
        assert set(info) == {"battle_won", "dead_allies", "dead_enemies"}
        returns.append(total)
    assert np.mean(returns) == pytest.approx(RETURNS[name], rel=0.4)
    env.save_replay()
    env.close()


def check_contract(envs):
    fields = list(envs[0].info.field_shapes())
    player = Player("sc2", SerialEnvs(envs, list(range(len(envs))), fields), fields)
    player.play(150, np.random.default_rng(2))


def test_the_environment_keeps_the_contract(shared):
    check_contract([shared])


def test_two_games_at_once_keep_the_contract(make):
    envs = [make("5m_vs_6m", seed) for seed in derive_seeds(0, 0, 2)]
    check_contract(envs)
    assert envs[0].restarts == envs[1].restarts == 0


def test_random_play_earns_what_it_earns_in_skirmish(shared):
    rng = np.random.default_rng(5)
    returns, steps, ended = zip(*(play(shared, rng) for _ in range(20)), strict=True)
    assert all(ended)
    assert max(steps) <= shared.info.episode_limit
    assert np.mean(returns) == pytest.approx(RETURNS[shared._options.map_name], rel=0.4)


def rows_of(name):
    """For each enemy as the game's are sorted, a row of the same type in the order of ``skirmish``."""
    given = load_map(name)
    return np.argsort([given.units[group.unit].type for group in expand(given.layout.enemies)], kind="stable")


@pytest.mark.parametrize("capacity", ["paper", "none", "shots_to_kill", "fixed"])
def test_it_shows_what_skirmish_shows(shared, monkeypatch, capacity):
    env, name, rng = shared, shared._options.map_name, np.random.default_rng(1)
    # The game is the same with each of them.
    monkeypatch.setattr(env, "_options", env._options.model_copy(update={"capacity": capacity}))
    monkeypatch.setattr(env, "_damage", _volley_damage(name) if capacity == "shots_to_kill" else None)
    rows, fields, n = rows_of(name), list(env.info.field_shapes()), env.info.n_agents
    twin = Skirmish(SkirmishOptions(map_name=name, capacity=capacity, state_last_action=False), [0], fields)
    twin.reset()
    columns = {"task_feats": 0, "task_alive": 0, "capacity": 0} | dict.fromkeys(env.info.tasks.costs, 1)
    # Where enemies are of several types, they stand in other columns of these.
    mixed = () if (rows == np.arange(len(rows))).all() else ("obs", "state", "avail_actions")
    play(env, rng)
    observation = env.reset()
    for _ in range(40):
        state = twin.state_dict()
        table = env._units()[:, [0, 1, 2, 3, 6]].T
        table[2:, table[2] <= 0] = 0.0
        state["world"]["units"][0][:, :n], state["world"]["units"][0][:, n + rows] = table[:, :n], table[:, n:]
        twin.load_state_dict(state)
        for field in set(fields) - set(mixed):
            shown = twin.observation[field][0]
            shown = np.take(shown, rows, columns[field]) if field in columns else shown
            np.testing.assert_allclose(observation[field], shown, atol=1e-5, err_msg=field)
        observation, _, terminated, truncated, _ = env.step(legal(observation, rng))
        if terminated or truncated:
            return


def test_enemies_are_sorted_by_type_then_from_left_to_right(shared):
    play(shared, np.random.default_rng(6))
    shared.reset()
    keys = [(unit.unit_type, unit.pos.x, unit.pos.y) for unit in shared._game.enemies.values()]
    assert keys == sorted(keys)
    if shared._options.map_name == "2s3z":
        assert [key[0] for key in keys] == [73] * 3 + [74] * 2


def win(env):
    """Plays to the end against weak enemies: sums of rewards, task rewards [M], the high level's; agents' last life."""
    observation, total, earned, high, over = env.reset(), 0.0, 0.0, 0.0, False
    while not over:
        observation, reward, terminated, truncated, extras = env.step(fight(observation))
        total, earned, high = total + reward, earned + extras["task_reward"].sum(0), high + float(extras["reward_high"])
        over = terminated or truncated
    return total, earned, high, observation["agent_feats"][:, 2]


@pytest.mark.parametrize("name", ["3m", "8m"])
def test_a_perfect_battle_is_worth_twenty_in_every_episode(make, monkeypatch, name):
    monkeypatch.setenv(sc2_game.COOLDOWN, "1000")
    env = make(name, task_rewards="damage")
    for _ in range(3):
        total, earned, high, life = win(env)
        assert total == pytest.approx(20.0, abs=1e-4)
        assert earned == pytest.approx(2.0, abs=1e-5)
        # All enemies, for the health that their one volley costs and the agent that it may kill.
        assert 0.1 < 1 - life.mean() < 0.3
        assert high == pytest.approx(1.0 - 0.5 * (1 - life.mean() + (life == 0).mean()), abs=1e-5)
        metrics = env.episode_metrics()
        assert (metrics["success"], metrics["out_of_time"], metrics["restarts"]) == (1, 0, 0)
        assert metrics["steps_to_success"] > 5
        assert metrics["dead_enemies"] == env.info.tasks.n_tasks


def test_deaths_are_seen_with_sparse_rewards(make, monkeypatch):
    monkeypatch.setenv(sc2_game.COOLDOWN, "1000")
    total, earned, high, _ = win(
        make("3m", reward_sparse=True, reward_scale=False, task_rewards="kill", high_rewards="win")
    )
    assert total == 1.0
    assert earned.tolist() == [3.0] * 3  # 1 for each agent
    assert high == 1.0


def test_the_flat_reward_can_be_made_of_what_both_levels_earn(make, monkeypatch):
    monkeypatch.setenv(sc2_game.COOLDOWN, "1000")
    total, earned, high, _ = win(make("3m", flat_reward="levels"))
    assert earned.sum() > 0
    assert total == pytest.approx(0.5 * high + 0.5 * earned.sum() / 3, abs=1e-5)


@pytest.mark.parametrize("continuing", [False, True])
def test_out_of_time(make, continuing):
    env = make("3m", episode_limit=4, continuing_episode=continuing)
    assert env.info.episode_limit == 4
    observation = env.reset()
    for t in range(4):
        observation, _, terminated, truncated, _ = env.step(observation["avail_actions"].argmax(-1))
        assert (terminated, truncated) == ((t == 3) and not continuing, (t == 3) and continuing)
    assert env.episode_metrics()["out_of_time"] == 1


def test_the_numbers_of_steps_fit_the_sizes(make):
    env = make("3m", obs_timestep_number=True, state_timestep_number=True)
    observation = env.reset()
    observation = env.step(observation["avail_actions"].argmax(-1))[0]
    assert observation["obs"].shape == (3, env.info.obs_shape)
    assert observation["obs"][:, -1] == pytest.approx(1 / 60)
    assert observation["state"][-1] == pytest.approx(1 / 60)


def test_a_reset_without_a_step_is_the_same_episode(make, game):
    env = make("3m")
    first = env.reset()["obs"]
    assert (env.reset()["obs"] == first).all()
    assert len(games(game)) == len(env.game_seeds) == 1
    env.step(env.reset()["avail_actions"].argmax(-1))
    # In the middle of the first episode, where smac by itself launches a second game.
    env.reset()
    assert len(games(game)) == len(env.game_seeds) == 1
    assert env._game.max_reward == 365


def test_new_units_that_are_late(make, monkeypatch):
    monkeypatch.setenv(sc2_game.LATE, "7")
    env, rng = make("3m"), np.random.default_rng(0)
    assert all(play_many(env, rng, 4))
    assert env.restarts == 0
    assert env._game.max_reward == 365


@pytest.mark.parametrize(
    ("fault", "step"),
    [(sc2_game.DIE_AT, 1), (sc2_game.DIE_AT, 5), (sc2_game.DIE_AT, 40), (sc2_game.HANG_AT, 5)],
)
def test_a_lost_game_costs_one_episode(make, game, monkeypatch, fault, step):
    monkeypatch.setenv(fault, str(step))
    monkeypatch.setenv(sc2_game.ONCE, str(game / "once"))
    env, rng = make("3m"), np.random.default_rng(0)
    ended = []
    while env.restarts == 0:
        ended.append(play(env, rng)[2])
    # Step 40 may also be the one that begins an episode: then none is lost.
    assert ended[-1] is False or step == 40
    if not ended[-1]:
        metrics = env.episode_metrics()
        assert metrics["restarts"] == 1
        assert all(np.isnan(value) for name, value in metrics.items() if name != "restarts")
        assert games(game) == []
        with pytest.raises(RuntimeError, match="reset"):
            env.step(np.ones(3))
    counted = []
    for _ in range(2):
        assert play(env, rng)[2]
        counted.append(env.episode_metrics()["restarts"])
    # The runner leaves dropped episodes out, so the next whole one has to tell.
    assert counted == [0 if ended[-1] else 1, 0]
    assert len(set(env.game_seeds)) == 2
    assert env._game.max_reward == 365


@pytest.mark.parametrize(("fault", "start_timeout"), [(sc2_game.REFUSE, 1), (sc2_game.DIE_AT, 60)])
def test_it_gives_up(make, monkeypatch, fault, start_timeout):
    monkeypatch.setenv(fault, "1")
    env, rng = make("3m", max_restarts=1, start_timeout=start_timeout), np.random.default_rng(0)
    with pytest.raises(RunFailed, match="lost 2 times in a row") as caught:
        play_many(env, rng, 9)
    assert "max_restarts = 1" in str(caught.value)
    assert len(env.game_seeds) == 2


def test_a_port_that_another_program_has_taken(make, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1], portpicker.pick_unused_port()]
        monkeypatch.setattr("portpicker.pick_unused_port", lambda: ports.pop(0))
        env = make("3m")
        assert play(env, np.random.default_rng(0))[2]
    assert env.restarts == 1


def test_a_full_disk_is_told(make, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(RunFailed, match=r"lost 2 times in a row .* No space left on device"):
        make("3m", max_restarts=1).reset()


def play_on(env, faults, rng, folder):
    """Strikes the game in some step of an episode, once with each signal, and plays a whole episode after each."""
    for fault in faults:
        observation, when, extras = env.reset(), int(rng.integers(0, 8)), {}
        pid = env.pid
        for t in range(when + 1):
            assert DROPPED not in extras
            if t == when:
                strike(pid, fault)
            observation, reward, terminated, truncated, extras = env.step(legal(observation, rng))
        assert extras.pop(DROPPED)
        assert (reward, terminated, truncated, extras["task_reward"].any()) == (0.0, False, False, False)
        assert pid not in games(folder)
        total, steps, ended = play(env, rng)
        assert ended
        assert steps > 5
        assert total > 0


@pytest.mark.slow
def test_killed_and_hung_twenty_times(make, game):
    envs, faults = [make("3m", seed) for seed in range(4)], [signal.SIGKILL, signal.SIGSTOP] * 2 + [signal.SIGKILL]
    # Side by side, as they mostly wait.
    with ThreadPoolExecutor(len(envs)) as pool:
        running = [pool.submit(play_on, env, faults, np.random.default_rng(k), game) for k, env in enumerate(envs)]
        for player in running:
            player.result()
    assert [env.restarts for env in envs] == [5] * 4
    assert len({seed for env in envs for seed in env.game_seeds}) == 24
    assert sorted(games(game)) == sorted(env.pid for env in envs)


@pytest.mark.parametrize("where", [in_process, in_workers])
def test_games_that_hang_hold_up_nobody_who_closes_them(game, where):
    # Two in each worker, and an answer may be waited for longer than a worker is.
    options = Sc2Options(step_timeout=60, save_replays=where is in_process, replay_dir=str(game / "replays"))
    envs = where("sc2", options, [1, 2], ["obs"], ParallelRunnerOptions(n_workers=1))
    envs.reset()
    assert len(games(game)) == 2
    for pid in games(game):
        strike(pid, signal.SIGSTOP)
    start = time.monotonic()
    envs.close()
    assert time.monotonic() - start < (25 if options.save_replays else 10)


def test_seeds_are_derived_and_go_on_after_a_resume(make):
    env, rng = make("3m", seed=9), np.random.default_rng(0)
    first = env.reset()["obs"]
    play(env, rng)
    state = env.state_dict()
    again = make("3m", seed=9)
    assert (again.reset()["obs"] == first).all()
    again.load_state_dict(state)
    with pytest.raises(RuntimeError, match="reset"):
        again.step(np.ones(3))
    assert not (again.reset()["obs"] == first).all()
    assert again.game_seeds[0] == env.game_seeds[0] != again.game_seeds[1]


def test_no_game_outlives_its_trainer(game):
    code = """
        import os, signal, sys
        from envs.starcraft2 import StarCraft2
        from envs.starcraft2_options import Sc2Options
        env = StarCraft2(Sc2Options(), 0)
        env.step(env.reset()["avail_actions"].argmax(-1))
        print(env.pid, flush=True)
    """
    path = os.pathsep.join(str(sc2_game.ROOT / folder) for folder in ("src", "tests"))
    environment = os.environ | {"PYTHONPATH": path}
    trainers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code) + end],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for end in ("os.kill(os.getpid(), signal.SIGKILL)", "raise KeyError('oops')", "sys.exit(0)")
    ]
    pids = [int(trainer.communicate(timeout=120)[0].split()[-1]) for trainer in trainers]
    assert len(set(pids)) == 3
    assert [trainer.returncode for trainer in trainers] == [-signal.SIGKILL, 1, 0]
    deadline = time.monotonic() + 5
    while games(game) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert games(game) == []
    # Nobody was left to remove that of the killed one.
    (folder,) = (game / "temp").glob("sc-*")
    folder.rmdir()


@pytest.mark.parametrize("where", [in_process, in_workers])
def test_a_replay_of_each_game(game, where):
    options = Sc2Options(save_replays=True, replay_dir=str(game / "replays"), replay_prefix="mine")
    envs = where("sc2", options, [1], ["avail_actions"], ParallelRunnerOptions(n_workers=1))
    envs.reset()
    envs.step(envs.observation["avail_actions"].argmax(-1), np.ones(1, np.bool_))
    envs.close()
    assert [path.name.startswith("mine") for path in (game / "replays").rglob("*.SC2Replay")] == [True]
