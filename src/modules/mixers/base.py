"""What the value-based learners mix the agents' values with."""

from __future__ import annotations

from torch import nn


class Mixer(nn.Module):
    """Q_tot of a joint action from the agents' values; built with ``(n_agents, state_dim, n_actions)``.

    ``forward(values, states)`` takes Q_i [..., N] of the actions taken and the states [..., S], and returns [..., 1].
    Where ``uses_actions``, it is ``forward(values, states, best, actions)`` with the largest value of each agent's
    available actions [..., N] and the actions taken, one-hot [..., N, A].
    """

    # Whether states must be given; otherwise they may be ``None``.
    uses_state: bool
    uses_actions: bool = False
