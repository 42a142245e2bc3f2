"""HSD's controller: every agent picks a skill, keeps it for a segment of steps, and acts by it.

Shape legend: B episodes, T steps, R rows (environments that still act), N agents, K skills, S whole segments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from components.action_selectors import epsilon_greedy
from components.episode_buffer import EpisodeBatch, FieldSpec
from components.errors import UserError
from components.registry import Options
from components.schedules import linear
from controllers.base import Array, Clock, Controller, Decision, Rows, numpy_rows
from envs.base import EnvInfo
from modules.agents.hsd_agent import HsdAgent


class HsdOptions(Options):
    """Segments, what the decoder sees of them, and exploration."""

    segment_length: int = Field(10, ge=1, description="steps that a skill is kept")
    decoder_skip: int = Field(2, ge=1, description="steps between the observations that the decoder compares")
    decoder_obs: int | None = Field(
        None, ge=1, description="entries of the observation that the decoder sees at most, the first ones; null: all"
    )
    obs_agent_id: bool = Field(True, description="append the agent's index, one-hot, to its observation")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="probability of a random skill or action at the start")
    epsilon_finish: float = Field(0.05, ge=0, le=1, description="the same after the decay")
    epsilon_anneal_time: int = Field(50_000, ge=1, description="environment steps of the linear decay")

    @model_validator(mode="after")
    def _two_observations(self) -> HsdOptions:
        if self.decoder_skip > self.segment_length:
            raise ValueError(
                f"decoder_skip = {self.decoder_skip} is more than segment_length = {self.segment_length}: the decoder "
                f"would see no change within a segment; use decoder_skip <= {self.segment_length}"
            )
        return self


class HsdController(Controller):
    """High level: skills, epsilon-greedy on Q^h at every ``segment_length``-th step. Low level: the same on Q^l(o, z).

    Args:
        info: shapes of the environment.
        options: segments and exploration.
        agent: ``agent(input_dim, n_actions, decoder_dim)`` builds the networks.
        rng: draws exploration.
        device: where the networks run.

    Raises:
        UserError: a segment is longer than an episode.
    """

    fields = ("obs", "avail_actions")

    def __init__(
        self,
        info: EnvInfo,
        options: HsdOptions,
        agent: Callable[[int, int, int], HsdAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        if options.segment_length > info.episode_limit:
            raise UserError(
                f"segment_length = {options.segment_length} is longer than this environment's episodes of at most "
                f"{info.episode_limit} steps, but the decoder needs whole segments: use segment_length <= "
                f"{info.episode_limit}"
            )
        self.options = options
        self.device = device
        self.n_agents = info.n_agents
        self.decoder_obs = min(options.decoder_obs or info.obs_shape, info.obs_shape)
        input_dim = info.obs_shape + options.obs_agent_id * info.n_agents
        self.agent = agent(input_dim, info.n_actions, self.decoder_obs).to(device)
        self._ids = torch.eye(info.n_agents, device=device)
        self._rng = rng
        self._skills = np.zeros((0, info.n_agents), dtype=np.int64)

    @override
    def extra_fields(self) -> dict[str, FieldSpec]:
        return {"skills": FieldSpec((self.n_agents, 1), torch.int64)}

    @override
    def modules(self) -> dict[str, nn.Module]:
        return {"agent": self.agent}

    @override
    def begin_episodes(self, batch_size: int) -> None:
        self._skills = np.zeros((batch_size, self.n_agents), dtype=np.int64)

    @override
    @torch.no_grad()
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        where, options = numpy_rows(rows), self.options
        inputs = self.inputs(batch["obs"][rows, t].to(self.device))
        progress = clock.env_steps / options.epsilon_anneal_time
        epsilon = 0.0 if test_mode else linear(options.epsilon_start, options.epsilon_finish, progress)
        if t % options.segment_length == 0:
            values = self.agent.skill_values(inputs).cpu().numpy()
            self._skills[where] = epsilon_greedy(values, np.ones_like(values), epsilon, self._rng)
        skills = self._skills[where][..., None]
        values = self.agent.action_values(inputs, torch.from_numpy(skills).to(self.device)).cpu().numpy()
        avail = batch["avail_actions"].numpy()[where, t]
        return Decision(epsilon_greedy(values, avail, epsilon, self._rng), {"skills": skills})

    def inputs(self, obs: Tensor) -> Tensor:
        """[..., N, F] what the agents see, from observations [..., N, O]."""
        if not self.options.obs_agent_id:
            return obs
        return torch.cat([obs, self._ids.expand(*obs.shape[:-1], -1)], -1)

    def whole_segments(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Row in the batch [S] and first step [S] of the segments that no end of an episode cuts short."""
        length = self.options.segment_length
        starts = torch.arange(0, batch.max_seq_length - 1, length, device=batch.device)
        episode, which = torch.nonzero(starts + length <= batch.lengths().unsqueeze(1), as_tuple=True)
        return episode, starts[which]

    def recognize(self, batch: EpisodeBatch, episode: Tensor, start: Tensor) -> Tensor:
        """[S, N, K] the decoder's logits for whole segments, of which there must be one.

        It sees how the observation changes over every ``decoder_skip`` steps, up to what the last action led to.
        """
        options = self.options
        steps = torch.arange(0, options.segment_length + 1, options.decoder_skip, device=batch.device)
        seen = batch["obs"][episode.unsqueeze(1), start.unsqueeze(1) + steps][..., : self.decoder_obs]
        logits: Tensor = self.agent.decoder(seen.diff(dim=1).transpose(1, 2).flatten(0, 1))
        return logits.unflatten(0, (-1, self.n_agents))

    def recognized(self, batch: EpisodeBatch) -> Tensor:
        """[B, T, N] p(z_i | tau_i) of the own skill at all steps of a whole segment; NaN elsewhere."""
        known = torch.full(batch["skills"].shape[:-1], torch.nan, device=batch.device)
        episode, start = self.whole_segments(batch)
        if len(episode):
            probability = self.recognize(batch, episode, start).softmax(-1)
            own = probability.gather(-1, batch["skills"][episode, start]).squeeze(-1)
            steps = start.unsqueeze(1) + torch.arange(self.options.segment_length, device=batch.device)
            known[episode.unsqueeze(1), steps] = own.unsqueeze(1)
        return known

    @override
    @torch.no_grad()
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        batch = batch.to(self.device)
        told = {
            "skill": batch["skills"].squeeze(-1),
            "Q(skill)": self.agent.skill_values(self.inputs(batch["obs"])),
            "p(skill | segment)": self.recognized(batch),
        }
        return {name: value.cpu().numpy() for name, value in told.items()}
