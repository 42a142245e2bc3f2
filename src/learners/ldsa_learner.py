"""LDSA's learner (Yang et al. 2022, arXiv 2205.02561): QMIX, subtasks that differ, and selections that last.

Loss = TD loss - lambda_phi distance + lambda_h smoothness.

Shape legend: B episodes, T transitions, N agents, K subtasks, E length of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import EpisodeBatch
from components.random import load_rng_state, rng_state
from controllers.ldsa_controller import LdsaController, gumbel
from envs.base import EnvInfo
from learners.q_learner import QLearner, QLearnerOptions
from modules.mixers.base import Mixer


class LdsaLearnerOptions(QLearnerOptions):
    """Targets, optimizer and rhythm, and the weights of the two further terms."""

    lambda_subtask_repr: float = Field(1e-3, ge=0, description="lambda_phi: weight of the distance between subtasks")
    lambda_subtask_prob: float = Field(1e-3, ge=0, description="lambda_h: weight of the smoothness of selections")


class LdsaLearner(QLearner):
    """Q-learning with subtasks that are sampled anew in every update.

    Args:
        controller: acts and unrolls the networks.
        info: shapes of the environment.
        options: targets, optimizer, rhythm and weights.
        rng: draws the subtasks.
        device: where to learn.
        mixer: ``mixer(n_agents, state_dim, n_actions)`` builds the mixer; ``None`` for independent learners.
    """

    controller: LdsaController
    options: LdsaLearnerOptions

    def __init__(
        self,
        controller: LdsaController,
        info: EnvInfo,
        options: LdsaLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        mixer: Callable[[int, int, int], Mixer] | None = None,
    ) -> None:
        super().__init__(controller, info, options, rng, device, mixer)
        # The controller tells the subtasks, which say more than the values.
        self.explains = False
        self._rng = rng

    @override
    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        agent = self.controller.agent
        shape = (*batch["obs"].shape[:-1], agent.n_subtasks)
        noise, noise_behind = (gumbel(shape, self._rng, self.device) for _ in range(2))
        online = self.controller.subtasks(batch, agent, noise)
        with torch.no_grad():
            behind = self.controller.subtasks(batch, self.targets["agent"], noise_behind).values
        loss, metrics = self.q_loss(batch, online.values, behind)
        distance, smoothness = subtask_distance(agent.embeddings()), selection_change(online.logits, batch.mask())
        loss = loss - self.options.lambda_subtask_repr * distance + self.options.lambda_subtask_prob * smoothness
        return loss, metrics | {"subtask_distance": distance.detach(), "selection_change": smoothness.detach()}

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rng": rng_state(self._rng)}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        load_rng_state(self._rng, state["rng"])


def subtask_distance(embeddings: Tensor) -> Tensor:
    """Mean of ||e_k - e_l||^2 over ordered pairs k != l, e_l without gradient: 0 for a single subtask.

    Args:
        embeddings: [K, E].
    """
    k = len(embeddings)
    squares = (embeddings.unsqueeze(1) - embeddings.detach()).square().sum(-1)
    return squares.sum() / max(k * (k - 1), 1)


def selection_change(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the next step's selection under this step's, softmax(logits_t) without gradient.

    Over agents and all pairs of consecutive transitions; 0 where there is none.

    Args:
        logits: [B, T + 1, N, K].
        mask: [B, T, 1] 1 where there is a transition.
    """
    now, after = logits[:, :-2].softmax(-1).detach(), logits[:, 1:-1].log_softmax(-1)
    both = mask[:, 1:]
    change = -(now * after).sum(-1) * both
    return change.sum() / (both.sum() * change.shape[-1]).clamp(min=1.0)
