"""Navigation worlds for tests: built with keyword options, placed by hand, stepped all together."""

import numpy as np

from envs.base import TASK_FIELDS, MultiAgentEnv
from envs.navigation import ConstrainedNavigationOptions, Navigation, NavigationOptions

FIELDS = ("obs", "state", "avail_actions", *TASK_FIELDS)
STAY, LEFT, RIGHT, DOWN, UP = range(5)


def plain(seeds=(1,), fields=FIELDS, numba=False, **options):
    n = options.setdefault("n_landmarks", 3)
    return Navigation(NavigationOptions(n_agents=n, **options), seeds, fields, numba=numba)


def constrained(seeds=(1,), fields=FIELDS, numba=False, **options):
    return Navigation(ConstrainedNavigationOptions(**options), seeds, fields, numba=numba)


def place(env, agents, landmarks, capacity=None):
    """A new episode in which every world starts with these positions, at rest."""
    env.reset()
    env.position[:], env.landmark[:] = agents, landmarks
    if capacity is not None:
        env.capacity[:] = capacity
    return env


def step(env, actions=None):
    """One step of all worlds, without a push when no actions are given; the reward parts are copies."""
    shape = env.position.shape[:2]
    given = np.zeros(shape, np.int64) if actions is None else np.broadcast_to(actions, shape).astype(np.int64)
    result = env.step(given, np.ones(env.n_envs, np.bool_))
    parts = {"reward": result.reward, "terminated": result.terminated, "truncated": result.truncated, **result.extras}
    return {name: np.array(value) for name, value in parts.items()}


class OneWorld(MultiAgentEnv):
    """A navigation world as a single environment."""

    def __init__(self, options, seed):
        self.world = Navigation(options, [seed], FIELDS)
        self.info = self.world.info

    def first(self, arrays):
        return {name: value[0].copy() for name, value in arrays.items()}

    def reset(self):
        self.world.reset()
        return self.first(self.world.observation)

    def step(self, actions):
        result = self.world.step(actions[None], np.ones(1, np.bool_))
        ended = bool(result.terminated[0]), bool(result.truncated[0])
        return self.first(self.world.observation), float(result.reward[0]), *ended, self.first(result.extras)

    def episode_metrics(self):
        return {name: float(value[0]) for name, value in self.world.episode_metrics().items()}

    def state_dict(self):
        return self.world.state_dict()

    def load_state_dict(self, state):
        self.world.load_state_dict(state)
