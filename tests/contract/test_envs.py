"""Every registered environment keeps the contract, in this process and in workers; a broken one is caught."""

import numpy as np
import pytest

from components.errors import UserError
from envs import REGISTRY
from envs.base import EnvInfo, MultiAgentEnv, TaskInfo
from envs.checks import ContractError, check_env, main
from envs.vector import SerialEnvs, in_process, in_workers
from runners.episode_runner import ParallelRunnerOptions

NO_CHANCE = {"matrix_game", "two_step_game"}
BACKENDS = {"in_process": in_process, "in_workers": in_workers}
LIMIT, N, M, A = 6, 2, 2, 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REGISTRY)
def test_registered_environments_keep_the_contract(name, backend):
    options = REGISTRY.options(name)()
    try:
        fields = list(in_process(name, options, [0], ()).info.field_shapes())
    except UserError as missing:
        pytest.skip(f"cannot be played here: {missing}")

    def make(seeds, fields):
        return BACKENDS[backend](name, options, seeds, fields, ParallelRunnerOptions(n_workers=2))

    check_env(make, fields=fields, random=name not in NO_CHANCE, name=name)


class Toy(MultiAgentEnv):
    """A correct environment with tasks: two agents walk on a line until agent 0 leaves it or the time is up."""

    def __init__(self, seed):
        tasks = TaskInfo(n_tasks=M, agent_feats=2, task_feats=2)
        self.info = EnvInfo(n_agents=N, n_actions=A, obs_shape=1, state_shape=N, episode_limit=LIMIT, tasks=tasks)
        self.rng = np.random.default_rng(seed)
        self.x, self.t = np.zeros(N), 0

    def reset(self):
        self.x, self.t = self.rng.random(N), 0
        return self.observe()

    def observe(self):
        places = np.stack([self.x, self.x], -1).astype(np.float32)
        return {
            "obs": self.x.astype(np.float32)[:, None],
            "state": self.x.astype(np.float32),
            "avail_actions": np.ones((N, A), np.int32),
            "agent_feats": places,
            "task_feats": places,
            "agent_alive": np.ones(N, np.bool_),
            "task_alive": np.ones(M, np.bool_),
            "capacity": np.ones(M, np.int64),
        }

    def step(self, actions):
        self.x = self.x + (actions - 1) * 0.5 + 0.1 * self.rng.random(N)
        self.t += 1
        terminated = bool(self.x[0] > 2)
        extras = {"reward_high": np.float32(terminated), "task_reward": np.ones((N, M), np.float32)}
        return self.observe(), float(self.x.sum()), terminated, self.t >= LIMIT and not terminated, extras

    def episode_metrics(self):
        return {"place": float(self.x[0])}

    def state_dict(self):
        return {"x": self.x.copy(), "t": self.t, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.x, self.t = state["x"].copy(), state["t"]
        self.rng.bit_generator.state = state["rng"]


def check(env=Toy, vector=SerialEnvs):
    check_env(lambda seeds, fields: vector([env(s) for s in seeds], seeds, fields), n_steps=30, name="toy")


def test_a_correct_environment_passes():
    check()


def observing(field, value):
    """Toy that observes ``value(self)`` in a field from step 2 on."""

    class Broken(Toy):
        def observe(self):
            right = super().observe()
            return right | {field: value(right[field])} if self.t >= 2 else right

    return Broken


def stepping(change):
    """Toy whose steps return ``change(self, reward, terminated, truncated, extras)``."""

    class Broken(Toy):
        def step(self, actions):
            observation, *rest = super().step(actions)
            return (observation, *change(self, *rest))

    return Broken


def grown(value):
    return np.concatenate([value, value])


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


def forever(env, reward, terminated, truncated, extras):
    return reward, False, False, extras


def impatient(env, reward, terminated, truncated, extras):
    return reward, False, env.t >= LIMIT - 1, extras


def spoiled(name, value):
    return lambda env, reward, terminated, truncated, extras: (
        reward,
        terminated,
        truncated,
        extras | {name: value(extras[name])},
    )


class MissingState(Toy):
    def observe(self):
        return without(super().observe(), "state")


class GlobalChance(Toy):
    def __init__(self, seed):
        super().__init__(seed)
        self.rng = np.random.default_rng()


class SameSeed(Toy):
    def __init__(self, seed):
        super().__init__(0)


class ForgetsItsRng(Toy):
    def load_state_dict(self, state):
        self.x, self.t = state["x"].copy(), state["t"]


class ForgetsTheEpisode(Toy):
    def load_state_dict(self, state):
        super().load_state_dict(state | {"x": np.zeros(N)})


class InfiniteMetric(Toy):
    def episode_metrics(self):
        return {"place": float("inf")}


STEPS_OF_TOY = {
    "both ended": (stepping(lambda env, reward, *rest: (reward, env.t > 2, env.t > 2, rest[2])), "both are true"),
    "no time limit": (stepping(forever), r"truncated, episode 0, step 6: environment 0 goes on"),
    "truncated early": (stepping(impatient), r"truncated.* step 5: .*only at the episode limit, step 6"),
    "reward NaN": (stepping(lambda env, reward, *rest: (float("nan"), *rest)), "'reward' of the step.*finite"),
    "no task reward": (stepping(lambda env, *r: (*r[:3], without(r[3], "task_reward"))), "'task_reward'.*missing"),
    "task reward's shape": (stepping(spoiled("task_reward", grown)), r"'task_reward'.*\(3, 4, 2\).*\(3, 2, 2\)"),
    "agent reward's shape": (
        stepping(lambda env, *r: (*r[:3], {**r[3], "agent_reward": np.ones((N, M), np.float32)})),
        r"'agent_reward'.*\(3, 2, 2\).*\(3, 2\)",
    ),
    "high reward's type": (stepping(spoiled("reward_high", np.float64)), "'reward_high'.*float64.*float32"),
}
OBSERVATIONS_OF_TOY = {
    "shape": (observing("obs", grown), r"toy, field 'obs', episode 0, step 2: .*\(3, 4, 1\); expected \(3, 2, 1\)"),
    "type": (observing("state", lambda v: v.astype(np.float64)), "field 'state', .*float64; expected .*float32"),
    "capacity's type": (observing("capacity", lambda v: v.astype(np.int32)), "field 'capacity', .*int32; .*int64"),
    "NaN": (observing("agent_feats", lambda v: v * np.nan), "field 'agent_feats', .*step 2.*finite numbers"),
    "no legal action": (observing("avail_actions", lambda v: v * 0), "agent 0 of environment 0 has no action"),
    "strange mask": (observing("avail_actions", lambda v: v * 2), "'avail_actions'.*0 or 1"),
    "missing field": (MissingState, "'state' is missing; expected the fields .*'state'"),
}
OTHERS_OF_TOY = {
    "global chance": (GlobalChance, "two environments of the same seeds differ"),
    "seed ignored": (SameSeed, "environments 0 and 1, of different seeds, play the same episodes"),
    "random stream not restored": (ForgetsItsRng, "state_dict of episode .* does not continue"),
    "episode not restored": (ForgetsTheEpisode, "state_dict of episode .*, step 3 does not continue"),
    "infinite metric": (InfiniteMetric, "metric 'place'.*infinite"),
}
BROKEN = STEPS_OF_TOY | OBSERVATIONS_OF_TOY | OTHERS_OF_TOY


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_environment_is_caught(fault):
    broken, message = BROKEN[fault]
    with pytest.raises(ContractError, match=message):
        check(broken)


class StepsEveryone(SerialEnvs):
    def step(self, actions, active):
        return super().step(actions, np.ones_like(active))


class MovesTheOthersSecretly(SerialEnvs):
    def step(self, actions, active):
        for b in np.flatnonzero(~active):
            self._envs[b].x = self._envs[b].x + 0.5
        return super().step(actions, active)


class SharesChance(SerialEnvs):
    def step(self, actions, active):
        for env in self._envs:
            env.rng = self._envs[0].rng
        return super().step(actions, active)


class WrongSeeds(SerialEnvs):
    @property
    def seeds(self):
        return [0, *self._seeds[1:]]


class OneMetric(SerialEnvs):
    def episode_metrics(self):
        return {name: value[:1] for name, value in super().episode_metrics().items()}


class NewMetrics(SerialEnvs):
    calls = 0

    def episode_metrics(self):
        self.calls += 1
        return super().episode_metrics() | ({"new": np.zeros(self.n_envs)} if self.calls > 1 else {})


class ExtraField(SerialEnvs):
    def reset(self):
        super().reset()
        self.observation["more"] = np.zeros(self.n_envs)


class LosesItsObservation(SerialEnvs):
    def load_state_dict(self, state):
        self._last = [
            {name: np.zeros_like(v) + (name == "avail_actions") for name, v in row.items()} for row in self._last
        ]
        last = self._last
        super().load_state_dict(state | {"last": last})


VECTORS = {
    "inactive ones stepped": (StepsEveryone, "an environment that was not active changed"),
    "inactive ones moved": (MovesTheOthersSecretly, "environment 0 does not go on where it stopped"),
    "shared random stream": (SharesChance, "differ|does not continue|when environment 0 is not active"),
    "seeds": (WrongSeeds, "toy, seeds, .*expected the seeds that it was made with"),
    "metrics' shape": (OneMetric, r"metric 'place'.*\(1,\); expected \(3,\)"),
    "metrics change": (NewMetrics, r"episode_metrics.*\['new', 'place'\]; expected \['place'\] as before"),
    "a field too many": (ExtraField, "observation.*'more'"),
    "observation not restored": (LosesItsObservation, "does not continue .*the observation of that step"),
}


@pytest.mark.parametrize("fault", VECTORS)
def test_a_broken_batch_of_environments_is_caught(fault):
    broken, message = VECTORS[fault]
    with pytest.raises(ContractError, match=message):
        check(vector=broken)


def test_environments_are_closed_when_a_check_fails():
    closed = []

    class Closing(SerialEnvs):
        def close(self):
            closed.append(self)

    with pytest.raises(ContractError):
        check(SameSeed, Closing)
    assert len(closed) == 3  # the probe and the two that are compared


def test_one_environment_cannot_be_compared():
    with pytest.raises(ValueError, match="at least 2"):
        check_env(lambda seeds, fields: None, n_envs=1)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["two_step_game", "--no-chance"], 0, "two_step_game: the contract holds"),
        (["two_step_game"], 1, "play the same episodes"),
        (["two_step_gam"], 2, "did you mean 'two_step_game'"),
        (["matrix_game", "payof=[[1]]"], 2, "did you mean 'payoff'"),
        (["matrix_game", "payoff=[[1, 2]]"], 2, "square"),
        ([], 2, "usage"),
    ],
)
def test_the_command(capsys, arguments, code, text):
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert text in (err if code else out)
