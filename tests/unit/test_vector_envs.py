import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.worker_envs import dying, two_step_games, unbuildable
from support.worlds import OneWorld

from components.episode_buffer import EpisodeBatch, episode_fields
from controllers.base import Clock, Controller, Decision, numpy_rows
from envs.base import TASK_FIELDS, derive_seeds
from envs.navigation import ConstrainedNavigationOptions
from envs.vector import SerialEnvs, WorkerEnvs, in_process, in_workers
from runners.episode_runner import EpisodeRunner, ParallelRunnerOptions

FIELDS = ("obs", "state", "avail_actions", *TASK_FIELDS)
# Large discs, so that some episodes end early and environments wait for each other.
OPTIONS = ConstrainedNavigationOptions(episode_limit=12, occupancy_radius=0.9, n_agents=3, n_landmarks=2)
SEEDS = derive_seeds(5, 0, 5)


class ByObservation(Controller):
    """Acts by a fixed rule on what each environment shows, so that its episodes depend on nothing else."""

    fields = FIELDS

    def begin_episodes(self, batch_size):
        pass

    def act(self, batch, t, rows, clock, test_mode):
        shown = batch["obs"][rows, t].numpy()
        return Decision(np.floor(shown.sum(-1) * 1e3).astype(np.int64) % batch.n_actions)

    def modules(self):
        return {}


def serial():
    return SerialEnvs([OneWorld(OPTIONS, seed) for seed in SEEDS], SEEDS, FIELDS)


def batched():
    return in_process("constrained_navigation", OPTIONS, SEEDS, FIELDS)


def workers(n_workers=2):
    return in_workers("constrained_navigation", OPTIONS, SEEDS, FIELDS, ParallelRunnerOptions(n_workers=n_workers))


def episodes(envs, count=3):
    fields = episode_fields(envs.info, FIELDS, ("reward_high", "task_reward", "agent_reward"), {})
    runner = EpisodeRunner(envs, ByObservation(), fields)
    return [runner.collect(Clock(0, 0, 1)) for _ in range(count)]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.env_steps == other.env_steps
        np.testing.assert_array_equal(mine.returns, other.returns)
        for name, tensor in mine.batch.data.items():
            torch.testing.assert_close(tensor, other.batch.data[name], rtol=0, atol=0, msg=name)
        assert set(mine.metrics) == set(other.metrics)
        for name, value in mine.metrics.items():
            np.testing.assert_array_equal(value, other.metrics[name], err_msg=name)


@pytest.fixture(scope="module")
def reference():
    return episodes(batched())


def test_the_reference_has_early_ends_and_time_limits(reference):
    lengths = np.concatenate([played.batch.lengths().numpy() for played in reference])
    assert lengths.min() < OPTIONS.episode_limit == lengths.max()
    assert any(played.batch["terminated"].any() and played.batch["truncated"].any() for played in reference)


def test_single_environments_play_the_batched_episodes(reference):
    assert_same(episodes(serial()), reference)


@pytest.fixture
def two_workers():
    envs = workers()
    yield envs
    envs.close()


def test_workers_play_the_same_episodes_and_leave_no_process(reference, two_workers):
    assert_same(episodes(two_workers), reference)
    state = two_workers.state_dict()
    after = episodes(two_workers, 1)
    two_workers.load_state_dict(state)
    assert_same(episodes(two_workers, 1), after)
    processes = list(two_workers._workers)
    assert [process.is_alive() for process in processes] == [True, True]
    two_workers.close()
    assert [process.exitcode for process in processes] == [0, 0]
    assert not set(processes) & set(multiprocessing.active_children())


def test_a_worker_that_dies_is_told_at_once():
    envs = WorkerEnvs(two_step_games, derive_seeds(0, 0, 3), 2)
    try:
        envs.reset()
        victim = envs._workers[1]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(5)
        start = time.monotonic()
        for call, *arguments in (("step", np.zeros((3, 2), np.int64), np.ones(3, np.bool_)), ("reset",)):
            with pytest.raises(RuntimeError, match=r"worker of environments 2 to 2 died \(exit code -9\)"):
                getattr(envs, call)(*arguments)
        assert time.monotonic() - start < 5
    finally:
        envs.close()
    assert not set(envs._workers) & set(multiprocessing.active_children())


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [(0, RuntimeError, r"environments 0 to 1 died \(exit code 3\)"), (1, ValueError, "the bridge is out")],
)
def test_what_goes_wrong_within_a_step_in_a_worker_is_told(action, error, message):
    envs = WorkerEnvs(dying, [1, 2], 1)
    try:
        envs.reset()
        with pytest.raises(error, match=message):
            envs.step(np.full((2, 2), action), np.ones(2, np.bool_))
    finally:
        envs.close()


def test_an_environment_that_cannot_be_built_is_told_and_leaves_no_process():
    before = set(multiprocessing.active_children())
    with pytest.raises(ValueError, match="no map of that name"):
        WorkerEnvs(unbuildable, [1, 2], 1)
    assert set(multiprocessing.active_children()) == before


def test_the_observation_of_single_environments_is_restored_within_an_episode():
    envs, other = serial(), serial()
    envs.reset()
    other.reset()
    envs.step(np.full((5, 3), 2), np.ones(5, np.bool_))
    state = envs.state_dict()
    shown = {name: value.copy() for name, value in envs.observation.items()}
    envs.step(np.full((5, 3), 1), np.ones(5, np.bool_))
    other.load_state_dict(state)
    for name, value in shown.items():
        np.testing.assert_array_equal(other.observation[name], value, err_msg=name)


def test_a_state_from_before_the_first_episode_can_be_loaded():
    envs, other = serial(), serial()
    other.load_state_dict(envs.state_dict())
    assert_same(episodes(other, 1), episodes(envs, 1))


def test_missing_fields_are_refused():
    with pytest.raises(KeyError, match="does not observe smell; it observes obs"):
        SerialEnvs([OneWorld(OPTIONS, 1)], [1], ("smell",))


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 300))
def test_derived_seeds_are_distinct_and_a_longer_list_begins_with_the_shorter(seed, stream, count):
    seeds = derive_seeds(seed, stream, count)
    assert len(set(seeds)) == len(seeds) == count
    assert all(0 <= value < 2**63 for value in seeds)
    assert derive_seeds(seed, stream, count + 1)[:count] == seeds
    for other in (derive_seeds(seed, stream + 1, count), derive_seeds((seed + 1) % 2**32, stream, count)):
        assert not set(other) & set(seeds)


def test_rows_index_both_kinds_of_arrays():
    batch = EpisodeBatch({"filled": torch.zeros(3, 2, 1)}, 2)
    rows = torch.tensor([0, 2])
    assert batch["filled"].numpy()[numpy_rows(rows)].shape == batch["filled"][rows].shape
    assert numpy_rows(slice(None)) == slice(None)


def test_recorded_episodes_end_once_at_their_last_transition(reference):
    for played in reference:
        batch = played.batch
        ended = (batch["terminated"] + batch["truncated"])[..., 0]
        last = batch.lengths() - 1
        assert ended.sum(1).tolist() == [1] * len(SEEDS)
        assert ended.argmax(1).tolist() == last.tolist()
        assert played.env_steps == batch.mask().sum() == batch.lengths().sum()
        np.testing.assert_allclose(played.returns, (batch["reward"][:, :-1] * batch.mask()).sum((1, 2)), rtol=1e-6)
        assert (batch["reward"][:, -1] == 0).all()
        np.testing.assert_array_equal(played.metrics["success"], batch["terminated"].any(1)[:, 0])
