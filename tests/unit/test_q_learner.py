"""IQL, VDN and QMIX: losses against loops, masks, double Q, target timing, and unrolling of recurrent agents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.q_learning import AGENTS, INFO, MIXERS, QMIX, episodes, learner, networks
from torch import Tensor, nn

from components.episode_buffer import EpisodeBatch, ReplayBuffer, episode_fields
from controllers.base import Clock
from envs.base import EnvInfo
from learners.base import blend_target, step
from learners.q_learner import QLearner
from modules.mixers.qmix import QMixer
from modules.mixers.vdn import VDNMixer


class TableAgent(nn.Module):
    """Values by the state that a one-hot observation names: exact where a network would only approximate."""

    def __init__(self, input_dim: int, n_actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(input_dim, n_actions))

    def forward(self, inputs: Tensor, hidden: None) -> tuple[Tensor, None]:
        return inputs @ self.table, None


def loss_and_gradients(built: QLearner, batch: EpisodeBatch) -> tuple[Tensor, list[Tensor]]:
    loss, _ = built.loss(batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(built.nets.parameters())))


@pytest.mark.parametrize("mixer", ["iql", "vdn"])
@pytest.mark.parametrize("double_q", [True, False])
def test_one_agent_is_dqn(mixer: str, double_q: bool) -> None:
    info = EnvInfo(n_agents=1, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7)
    built = learner(AGENTS["mlp"], MIXERS[mixer], info, double_q=double_q, gamma=0.9)
    lengths, ends = [7, 3, 1], [False, True, True]
    batch = episodes(lengths, ends, info)
    online, target = networks(built)
    last = torch.cat([torch.zeros(3, 1, 1, 4), batch["actions_onehot"][:, :-1]], 1)
    inputs = torch.cat([batch["obs"], last, torch.ones(3, 8, 1, 1)], -1)
    errors = []
    for b, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        for t in range(length):
            q = online.layers(inputs[b, t, 0])[batch["actions"][b, t, 0, 0]]
            y = batch["reward"][b, t, 0]
            if not (end and t == length - 1):
                allowed = [a for a in range(4) if batch["avail_actions"][b, t + 1, 0, a]]
                ahead, behind = online.layers(inputs[b, t + 1, 0]), target.layers(inputs[b, t + 1, 0])
                judge = ahead if double_q else behind
                y = y + 0.9 * behind[max(allowed, key=lambda a: float(judge[a].detach()))]
            errors.append((q - y.detach()) ** 2)
    reference = torch.stack(errors).mean()
    loss, gradients = loss_and_gradients(built, batch)
    assert float(loss) == pytest.approx(float(reference.detach()), rel=1e-5)
    expected = torch.autograd.grad(reference, list(online.parameters()))
    for found, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("td_lambda", [0.0, 0.6])
def test_junk_behind_the_end_changes_no_bit(agent: str, mixer: str, td_lambda: float) -> None:
    built = learner(AGENTS[agent], MIXERS[mixer], td_lambda=td_lambda)
    lengths = [7, 4, 1]
    clean, batch = (episodes(lengths, [True, True, False]) for _ in range(2))
    for b, length in enumerate(lengths):
        # The last observation belongs to the episode, the last action, reward and end mark come one step earlier.
        for name in ("obs", "state", "avail_actions"):
            batch.data[name][b, length + 1 :] = 100 * (1 - batch.data[name][b, length + 1 :])
        for name in ("reward", "terminated"):
            batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
        batch.data["actions"][b, length:] = 0
    loss, gradients = loss_and_gradients(built, batch)
    wanted, wanted_gradients = loss_and_gradients(built, clean)
    assert torch.equal(loss, wanted)
    assert all(map(torch.equal, gradients, wanted_gradients))


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_last_observation_counts_at_a_time_limit_only(mixer: str) -> None:
    built = learner(AGENTS["mlp"], MIXERS[mixer])
    for end in (True, False):
        batch, other = episodes([5], [end]), episodes([5], [end])
        other.data["obs"][:, 5] += 3.0
        assert torch.equal(built.loss(batch)[0], built.loss(other)[0]) == end


ONE = EnvInfo(n_agents=1, n_actions=3, obs_shape=2, state_shape=1, episode_limit=1)


def one_transition(terminated: bool = False, avail: tuple[int, int, int] = (1, 1, 1)) -> EpisodeBatch:
    """State 0, action 0, reward 0.5, state 1."""
    batch = EpisodeBatch.zeros(episode_fields(ONE, ("obs", "state", "avail_actions"), (), {}), 1, 2, 3)
    batch.data["obs"][0, 0, 0, 0] = batch.data["obs"][0, 1, 0, 1] = 1.0
    batch.data["avail_actions"][0, 0] = 1
    batch.data["avail_actions"][0, 1, 0] = torch.tensor(avail)
    batch.data["reward"][0, 0] = 0.5
    batch.data["filled"][:] = 1
    batch.data["terminated"][0, 0] = terminated
    return batch


def target_of(batch: EpisodeBatch, double_q: bool) -> float:
    built = learner(TableAgent, None, ONE, double_q=double_q, gamma=0.9)
    online, target = networks(built)
    online.table.data[1] = torch.tensor([1.0, 5.0, 3.0])
    target.table.data[1] = torch.tensor([10.0, 20.0, 30.0])
    return float(built.loss(batch)[1]["target_mean"])


@pytest.mark.parametrize(
    ("double_q", "avail", "value"),
    [
        (True, (1, 1, 1), 20.0),  # the online network picks action 1, the target network rates it
        (False, (1, 1, 1), 30.0),
        (True, (1, 0, 1), 30.0),
        (False, (1, 1, 0), 20.0),
        (True, (1, 0, 0), 10.0),
        (False, (1, 0, 0), 10.0),
    ],
)
def test_next_value_picked_online_rated_by_the_target_among_available_actions(
    double_q: bool, avail: tuple[int, int, int], value: float
) -> None:
    assert target_of(one_transition(avail=avail), double_q) == pytest.approx(0.5 + 0.9 * value)
    assert target_of(one_transition(terminated=True, avail=avail), double_q) == pytest.approx(0.5)


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("mixer", ["iql", "qplex"])
def test_an_unavailable_action_never_enters_the_target_however_large_its_value(mixer: str, double_q: bool) -> None:
    built = learner(AGENTS["mlp"], MIXERS[mixer], double_q=double_q)
    batch = episodes([7, 7], [False, True])
    batch.data["avail_actions"][..., 2] = 0
    batch.data["actions"][batch.data["actions"] == 2] = 1
    before = built.loss(batch)[0]
    for network in networks(built):
        network.layers[-1].bias.data[2] = 1e6
    assert torch.equal(built.loss(batch)[0], before)


def test_targets_are_updated_by_episodes_not_by_calls() -> None:
    built = learner(AGENTS["mlp"], VDNMixer, batch_size=4, episodes_per_update=4, target_update_interval=10)
    buffer = filled_buffer()
    blend_target(built.targets, built.nets, 1.0)
    changed = []
    for count in range(4, 29, 4):
        before = built.targets.state_dict()["agent.layers.0.weight"].clone()
        built.update(buffer, Clock(count * 7, count, 10_000))
        after = built.targets.state_dict()["agent.layers.0.weight"]
        changed.append(not torch.equal(before, after))
        assert torch.equal(after, built.nets.state_dict()["agent.layers.0.weight"]) == changed[-1]
    # 12 is the first count with 10 episodes since 0, 24 the first with 10 since 12.
    assert changed == [False, False, True, False, False, True, False]
    assert built.updates == 7
    # None before the buffer holds a batch.
    assert learner(AGENTS["mlp"], batch_size=9, episodes_per_update=1).update(buffer, Clock(50, 8, 1000)) is None


def test_targets_move_as_far_whether_episodes_come_eight_or_thirty_two_at_a_time() -> None:
    found = []
    for count in (8, 32):
        built = learner(AGENTS["mlp"], VDNMixer, target_update_interval=8, target_update_tau=0.08, batch_size=9)
        for net in built.nets.parameters():
            net.data.add_(1.0)
        for episodes_so_far in range(count, 65, count):
            built.update(filled_buffer(), Clock(episodes_so_far * 7, episodes_so_far, 10_000))
        found.append(built.targets.state_dict()["agent.layers.0.weight"])
    assert torch.equal(*found)


def filled_buffer() -> ReplayBuffer:
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), {})
    buffer = ReplayBuffer(fields, 16, INFO.episode_limit + 1, INFO.n_actions, np.random.default_rng(0))
    buffer.insert(episodes([7, 4, 5, 2, 7, 1, 3, 6], [True, False] * 4))
    return buffer


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_loss_falls_on_a_frozen_batch(agent: str, mixer: str, optimizer: str) -> None:
    built = learner(AGENTS[agent], MIXERS[mixer], optimizer=optimizer, lr=3e-3)
    batch = episodes([7, 4, 7, 2], [True, True, False, False])
    first = float(built.loss(batch)[0].detach())
    for _ in range(60):
        step(built.optimizer, built.loss(batch)[0], 10.0)
    assert float(built.loss(batch)[0].detach()) < 0.7 * first


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix_is_monotonic_in_every_agent(layers: int) -> None:
    torch.manual_seed(0)
    mixer = QMixer(4, 6, 5, mixing_embed_dim=8, hypernet_layers=layers, hypernet_embed=16, state_clip=1.0)
    values = (10.0 * torch.randn(50, 9, 4)).requires_grad_()
    total = mixer(values, 3.0 * torch.randn(50, 9, 6))
    (gradient,) = torch.autograd.grad(total.sum(), values)
    assert total.shape == (50, 9, 1)
    assert (gradient >= 0).all()
    assert (gradient > 0).float().mean() > 0.99


def test_qmix_with_equal_weights_above_zero_where_elu_is_the_identity_is_vdn() -> None:
    mixer = QMIX(3, 6, 5, hypernet_layers=1)
    for p in mixer.parameters():
        nn.init.zeros_(p)
    nn.init.constant_(mixer.hyper_w1.get_parameter("bias"), 1.0)
    nn.init.constant_(mixer.hyper_w2.get_parameter("bias"), 1.0 / mixer.embed_dim)
    values, states = torch.rand(2, 5, 3), torch.randn(2, 5, 6)
    assert torch.allclose(mixer(values, states), VDNMixer(3, 6, 5)(values, None))


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix_by_hand(layers: int) -> None:
    torch.manual_seed(0)
    mixer = QMIX(3, 6, 5, hypernet_layers=layers)
    values, states = 3.0 * torch.randn(10, 3), torch.randn(10, 6)
    totals = mixer(values, states).detach()

    def given(net: nn.Module, x: np.ndarray) -> np.ndarray:
        first, bias, *rest = (p.detach().numpy() for p in net.parameters())
        x = first @ x + bias
        return rest[0] @ np.maximum(x, 0.0) + rest[1] if rest else x

    for q, state, total in zip(values.numpy(), states.clamp(-1.0, 1.0).numpy(), totals.numpy(), strict=True):
        w1, w2 = (np.abs(given(net, state)) for net in (mixer.hyper_w1, mixer.hyper_w2))
        hidden = q @ w1.reshape(3, 4) + given(mixer.hyper_b1, state)
        wanted = w2 @ np.where(hidden > 0, hidden, np.expm1(hidden)) + given(mixer.value, state)
        assert total == pytest.approx(wanted, abs=1e-5)


def test_qmix_mixes_the_next_values_in_the_next_state() -> None:
    built = learner(AGENTS["mlp"], QMIX)
    batch, other = episodes([1], [False]), episodes([1], [False])
    other.data["state"][:, 1] += 1.0
    metrics, changed = built.loss(batch)[1], built.loss(other)[1]
    assert float(metrics["q_taken_mean"]) == float(changed["q_taken_mean"])
    assert float(metrics["target_mean"]) != float(changed["target_mean"])


@pytest.mark.parametrize("agent", AGENTS)
def test_unrolling_a_sequence_equals_acting_step_by_step(agent: str) -> None:
    """Row 1 ends after 2 steps and row 0 after 5: the others must keep their own hidden states."""
    built = learner(AGENTS[agent])
    controller = built.controller
    batch = episodes([5, 2, 7, 7], [True, True, False, False])
    outputs: list[tuple[Tensor, Tensor | None]] = []
    controller.agent.register_forward_hook(lambda module, given, out: outputs.append(out))
    whole = controller.unroll(batch[:, :7], controller.agent).detach()
    controller.begin_episodes(4)
    for t in range(7):
        rows = slice(None) if t < 2 else torch.tensor([0, 2, 3] if t < 5 else [2, 3])
        decision = controller.act(batch, t, rows, Clock(0, 0, 1), test_mode=True)
        values = outputs[-1][0][:, 0]
        assert torch.allclose(values, whole[rows, t], atol=1e-6)
        best = whole[rows, t].masked_fill(batch["avail_actions"][rows, t] == 0, -torch.inf).argmax(-1)
        assert decision.actions.tolist() == best.tolist()
    if agent == "gru":
        (_, unrolled), (_, stepped) = outputs[0], outputs[-1]
        assert unrolled is not None
        assert stepped is not None
        assert torch.allclose(stepped, unrolled[2:], atol=1e-6)


def test_a_new_episode_starts_with_an_empty_memory() -> None:
    controller = learner(AGENTS["gru"]).controller
    batch = episodes([7], [True])
    outputs: list[Tensor] = []
    controller.agent.register_forward_hook(lambda module, given, out: outputs.append(out[0]))
    for _ in range(2):
        controller.begin_episodes(1)
        for t in range(3):
            controller.act(batch, t, slice(None), Clock(0, 0, 1), test_mode=True)
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[0], outputs[1])


def endless_value(mark: str) -> float:
    """Learned value of one state that pays 1 per step, from episodes cut after 5 steps."""
    info = EnvInfo(n_agents=1, n_actions=1, obs_shape=1, state_shape=1, episode_limit=5)
    built = learner(TableAgent, None, info, gamma=0.9, optimizer="adam", lr=0.2)
    batch = EpisodeBatch.zeros(episode_fields(info, ("obs", "state", "avail_actions"), (), {}), 1, 6, 1)
    for name in ("obs", "avail_actions", "filled"):
        batch.data[name][:] = 1
    batch.data["reward"][:, :5] = 1.0
    batch.data[mark][:, 4] = 1
    for _ in range(600):
        step(built.optimizer, built.loss(batch)[0], 10.0)
        blend_target(built.targets, built.nets, 0.5)
    return float(networks(built)[0].table.detach())


def test_an_endless_reward_is_worth_one_over_one_minus_gamma_only_if_the_limit_is_no_end() -> None:
    assert endless_value("truncated") == pytest.approx(10.0, rel=0.01)
    # Fixed point of Q = mean over 5 steps of 1 + 0.9 Q, without the future at the last one.
    assert endless_value("terminated") == pytest.approx(1.0 / (1.0 - 0.9 * 4 / 5), rel=0.01)


def test_qmix_cuts_large_state_entries() -> None:
    torch.manual_seed(0)
    mixer = QMixer(3, 4, 5, mixing_embed_dim=8, hypernet_layers=2, hypernet_embed=16, state_clip=1.0)
    values, far = torch.randn(2, 5, 3), torch.tensor([9.0, -9.0, 0.5, 1.0]).expand(2, 5, 4)
    near = torch.tensor([1.0, -1.0, 0.5, 1.0]).expand(2, 5, 4)
    assert torch.equal(mixer(values, far), mixer(values, near))
    assert not torch.equal(mixer(values, near), mixer(values, 0.5 * near))
