"""RODE's action encoder: what an action does to the next observation and to the reward says what it is.

Shape legend: B episodes, T steps, S transitions, N agents, A actions, D length of an action's code.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# The reward's error counts so much more than the observation's.
REWARD_WEIGHT = 10.0
# k-means keeps the best of so many starts, each with so many rounds: actions are few.
STARTS, ROUNDS = 10, 50
# SMAC's order: no-op and stop come first.
IDLE = 2
FEWEST_ROLES = 3


class ActionEncoder(nn.Module):
    """Codes of the actions, and the forward model that they are learned by.

    Args:
        obs_dim: O.
        n_agents: N.
        n_actions: A.
        state_latent_dim: length of the code of observation and others' actions.
        action_latent_dim: D.
    """

    def __init__(
        self, obs_dim: int, n_agents: int, n_actions: int, state_latent_dim: int, action_latent_dim: int
    ) -> None:
        super().__init__()
        wide, joint = 2 * state_latent_dim, state_latent_dim + action_latent_dim
        self.action = _mlp(n_actions, wide, action_latent_dim)
        self.situation = _mlp(obs_dim + (n_agents - 1) * n_actions, wide, state_latent_dim)
        self.next_obs = _mlp(joint, state_latent_dim, obs_dim)
        self.reward = _mlp(joint, state_latent_dim, 1)
        self.n_actions = n_actions
        # Row i: everybody but i.
        self.others = [[j for j in range(n_agents) if j != i] for i in range(n_agents)]

    def codes(self) -> Tensor:
        """[A, D]."""
        found: Tensor = self.action(torch.eye(self.n_actions, device=next(self.parameters()).device))
        return found

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """[S, N, O] and one-hot [S, N, A] -> next observations [S, N, O] and team rewards [S, N]."""
        others = actions[:, self.others].flatten(-2) if self.others[0] else actions[..., :0]
        joint = torch.cat([self.situation(torch.cat([obs, others], -1)), self.action(actions)], -1)
        return self.next_obs(joint), self.reward(joint).squeeze(-1)

    def loss(self, obs: Tensor, actions: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
        """Mean over transitions and agents of ||o' - o'_hat||_2 + 10 (r - r_hat)^2.

        Args:
            obs: [B, T + 1, N, O].
            actions: [B, T, N, A] one-hot.
            rewards: [B, T, 1] of the team.
            mask: [B, T, 1] 1 where there is a transition.
        """
        # Padding is left out before, not masked after: episodes of one batch differ in length by a lot.
        there = mask.squeeze(-1) > 0
        next_obs, reward = self(obs[:, :-1][there], actions[there])
        error = torch.linalg.vector_norm(next_obs - obs[:, 1:][there], dim=-1)
        return (error + REWARD_WEIGHT * (reward - rewards[there]).square()).mean()


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def cluster(codes: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[A] labels of k-means: of several starts, the one whose points lie nearest to their centers.

    Args:
        codes: [A, D].
        count: clusters, at most A; some stay empty where fewer codes differ.
        rng: draws the starts (k-means++).
    """
    best, labels = np.inf, np.zeros(len(codes), np.int64)
    for _ in range(STARTS):
        centers = _starting_centers(codes, count, rng)
        for _ in range(ROUNDS):
            found = _squared_distances(codes, centers).argmin(1)
            for k in np.unique(found):
                centers[k] = codes[found == k].mean(0)
        spread = _squared_distances(codes, centers).min(1).sum()
        if spread < best:
            best, labels = spread, found
    return labels


def _starting_centers(codes: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[count, D] codes, each drawn in proportion to its squared distance from those before."""
    centers = codes[[rng.integers(len(codes))]]
    while len(centers) < count:
        away = _squared_distances(codes, centers).min(1)
        p = away / away.sum() if away.sum() > 0 else None
        centers = np.concatenate([centers, codes[[rng.choice(len(codes), p=p)]]])
    return centers


def _squared_distances(codes: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.square(codes[:, None] - centers).sum(-1)
    return found


def role_sets(labels: NDArray[np.int64], first_task_action: int | None) -> NDArray[np.bool_]:
    """[K, A] the actions of each role, from the actions' clusters [A].

    Every cluster is a role, and every role may do nothing (action 0). Where actions name tasks (enemies), the official
    rule: counted without no-op and stop, a cluster of two actions is a role as it is, a larger one gets all actions
    that name no task, a smaller one is dropped; copies of the first roles make it three, and where none is left all
    three have every action. Against the official rule, an action that no role is left with goes to all of them: no
    greedy agent would ever take it.

    Args:
        labels: cluster of each action.
        first_task_action: index of the first action that names a task, or ``None``.
    """
    sets = labels == np.unique(labels)[:, None]
    if first_task_action is not None:
        size = sets[:, IDLE:].sum(1)
        sets[size >= 3, :first_task_action] = True
        sets = sets[size >= 2] if (size >= 2).any() else np.ones((1, len(labels)), np.bool_)
        sets[:, ~sets.any(0)] = True
        sets = np.resize(sets, (max(len(sets), FEWEST_ROLES), len(labels)))
    sets[:, 0] = True
    return sets
