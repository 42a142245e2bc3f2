"""What the value-based learners mix the agents' values with."""

from __future__ import annotations

from torch import Tensor, nn

from components.episode_buffer import one_hot

UNAVAILABLE = -1e7


class Mixer(nn.Module):
    """Q_tot of a joint action from the agents' values; built with ``(n_agents, state_dim, n_actions)``.

    ``forward(values, states)`` takes Q_i [..., N] of the actions taken and the states [..., S], and returns [..., 1].
    Where ``uses_actions``, it is ``forward(values, states, best, actions)`` with the largest value of each agent's
    available actions [..., N] and the actions taken, one-hot [..., N, A].
    """

    # Whether states must be given; otherwise they may be ``None``.
    uses_state: bool
    uses_actions: bool = False


def mix(mixer: Mixer, values: Tensor, actions: Tensor, states: Tensor | None, avail: Tensor) -> Tensor:
    """Q_tot [..., 1] of a joint action.

    Args:
        mixer: any.
        values: [..., N, A] of all actions.
        actions: [..., N, 1] the actions taken.
        states: [..., S], or ``None`` where the mixer uses none.
        avail: [..., N, A] 0 where an action is unavailable.
    """
    taken = values.gather(-1, actions).squeeze(-1)
    if mixer.uses_actions:
        best = values.masked_fill(avail == 0, UNAVAILABLE).max(-1).values
        total: Tensor = mixer(taken, states, best, one_hot(actions, values.shape[-1]))
    else:
        total = mixer(taken, states)
    return total
