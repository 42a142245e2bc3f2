"""QMIX (Rashid et al. 2018, arXiv 1803.11485): a mixing network that is monotonic in every agent's value."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from components.registry import Options
from modules.mixers.base import Mixer


class QMixOptions(Options):
    """Sizes of the mixing network."""

    mixing_embed_dim: int = Field(32, ge=1, description="units of the mixing network's hidden layer")
    hypernet_layers: int = Field(2, ge=1, le=2, description="linear layers of the weight hypernetworks")
    hypernet_embed: int = Field(64, ge=1, description="hidden units of a two-layer hypernetwork")
    state_clip: float = Field(1.0, gt=0, description="state entries are cut to this size before the hypernetworks")


class QMixer(Mixer):
    """Q_tot = |w2(s)|' elu(|W1(s)|' Q + b1(s)) + v(s), so dQ_tot / dQ_i >= 0 for every i.

    Args:
        n_agents: N.
        state_dim: S.
        n_actions: not used.
        mixing_embed_dim: E, units of the hidden layer.
        hypernet_layers: linear layers (1 or 2) of the hypernetworks of W1 and w2.
        hypernet_embed: hidden units of a two-layer hypernetwork.
        state_clip: entries of the state are cut to [-state_clip, state_clip]: the weights |W(s)| grow with the state
            without bound, and where agents leave the arena the values then chase themselves upward.
    """

    uses_state = True

    def __init__(
        self,
        n_agents: int,
        state_dim: int,
        n_actions: int,
        mixing_embed_dim: int,
        hypernet_layers: int,
        hypernet_embed: int,
        state_clip: float,
    ) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.embed_dim = mixing_embed_dim
        self.state_clip = state_clip

        def hypernet(outputs: int) -> nn.Module:
            if hypernet_layers == 1:
                return nn.Linear(state_dim, outputs)
            return nn.Sequential(nn.Linear(state_dim, hypernet_embed), nn.ReLU(), nn.Linear(hypernet_embed, outputs))

        self.hyper_w1 = hypernet(n_agents * mixing_embed_dim)
        self.hyper_w2 = hypernet(mixing_embed_dim)
        self.hyper_b1 = nn.Linear(state_dim, mixing_embed_dim)
        self.value = nn.Sequential(nn.Linear(state_dim, mixing_embed_dim), nn.ReLU(), nn.Linear(mixing_embed_dim, 1))

    def forward(self, values: Tensor, states: Tensor) -> Tensor:
        """[B, T, N] values and [B, T, S] states -> [B, T, 1]."""
        lead = values.shape[:-1]
        states = states.clamp(-self.state_clip, self.state_clip)
        w1 = self.hyper_w1(states).abs().view(*lead, self.n_agents, self.embed_dim)
        hidden = (values.unsqueeze(-1) * w1).sum(-2) + self.hyper_b1(states)
        w2 = self.hyper_w2(states).abs()
        return (functional.elu(hidden) * w2).sum(-1, keepdim=True) + self.value(states)
