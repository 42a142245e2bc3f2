"""SEAC: reductions to independent A2C, sharing, importance weights, masks, clipping per agent, bounded memory."""

from __future__ import annotations

import pytest
import torch
from support.policies import played, seac
from support.q_learning import INFO
from support.small_runs import play, small_parts, start_clock
from torch import Tensor, nn

from components.episode_buffer import EpisodeBatch
from components.errors import UserError
from controllers.policy_controller import log_policy
from envs.base import EnvInfo
from learners.base import step
from learners.seac_learner import SeacLearner, Transitions
from modules.stacked import clip_each_agent_

N = INFO.n_agents
LENGTHS, ENDS = [7, 4, 1, 7], [False, True, True, True]


def parameters(built: SeacLearner) -> list[nn.Parameter]:
    return [*built.controller.parameters(), *built.critic.parameters()]


def gradients(built: SeacLearner, part: Transitions) -> list[Tensor]:
    return list(torch.autograd.grad(built.loss(part)[0], parameters(built)))


def everything(built: SeacLearner, batch: EpisodeBatch | None = None) -> Transitions:
    return built.transitions(played(built.controller, LENGTHS, ENDS) if batch is None else batch)


def perceptron(network: nn.Module, i: int, x: Tensor) -> Tensor:
    """Agent i's network, layer by layer."""
    first, _, second, _, head = network.layers
    for layer in (first, second):
        x = (x @ layer.weight[i] + layer.bias[i]).relu()
    return x @ head.weight[i] + head.bias[i]


def loss_of_pair(built: SeacLearner, part: Transitions, i: int, k: int) -> tuple[Tensor, Tensor]:
    """Policy and value loss of agent i on agent k's experience, transition by transition, and i's entropy on it."""
    total, entropy = torch.zeros(()), torch.zeros(())
    for s in range(len(part.returns)):
        x, avail = part.inputs[s, k], part.avail[s, k] > 0
        log_pi = perceptron(built.controller.agent, i, x)[..., avail.nonzero().squeeze(-1)].squeeze(0).log_softmax(-1)
        place = int(avail[: int(part.actions[s, k])].sum())
        rho = float((log_pi[place].detach() - part.log_probs[s, k]).exp())
        error = part.returns[s, k] - perceptron(built.critic, i, x).squeeze()
        total = total + rho * 0.5 * error.square()
        if avail.sum() > 1:
            total = total - rho * log_pi[place] * error.detach()
            entropy = entropy - (log_pi.exp() * log_pi).sum()
    return total / len(part.returns), entropy / len(part.returns)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.25])
def test_the_loss_is_the_papers_sum_over_pairs(share: float) -> None:
    """With share_coef 0 nothing but the agents' own actor-critics is left."""
    built = seac(share_coef=share, entropy_coef=0.05)
    part = everything(built)
    total = torch.zeros(())
    for i in range(N):
        for k in range(N):
            if i != k and not share:
                continue
            loss, entropy = loss_of_pair(built, part, i, k)
            total = total + (loss - 0.05 * entropy if i == k else share * loss)
    assert float(built.loss(part)[0].detach()) == pytest.approx(float(total.detach()), rel=1e-4)
    wanted = torch.autograd.grad(total, parameters(built))
    for left, right in zip(gradients(built, part), wanted, strict=True):
        assert torch.allclose(left, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_equal_agents_with_equal_experience_learn_their_own_gradient_once_for_each(share: float) -> None:
    found = {}
    for coefficient in (0.0, share):
        built = seac(share_coef=coefficient, entropy_coef=0.0)
        with torch.no_grad():
            for p in parameters(built):
                p.copy_(p[:1].expand_as(p))
        batch = played(built.controller, LENGTHS, ENDS)
        for name in ("obs", "avail_actions", "actions"):
            batch.data[name] = batch.data[name][:, :, :1].expand_as(batch.data[name]).clone()
        with torch.no_grad():
            batch.data["log_probs"] = built.controller.log_pi(batch).gather(-1, batch["actions"])
        found[coefficient] = gradients(built, everything(built, batch))
    for alone, shared in zip(found[0.0], found[share], strict=True):
        assert torch.allclose(shared, (1.0 + share * (N - 1)) * alone, rtol=1e-4, atol=1e-6)


def test_own_importance_is_one_while_the_policy_is_the_one_that_acted() -> None:
    built = seac(share_coef=0.0)
    assert float(built.loss(everything(built))[1]["importance_max"]) > 1.01, "that of the other agents' actions"
    one = EnvInfo(n_agents=1, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7)
    alone = seac(one)
    part = alone.transitions(played(alone.controller, LENGTHS, ENDS, one))
    assert float(alone.loss(part)[1]["importance_max"]) == pytest.approx(1.0, abs=1e-5)


def test_importance_is_a_weight_without_a_gradient() -> None:
    """Agent 0's gradient is the slope of its loss with rho held: the behavior's log-probabilities move along."""
    built = seac(entropy_coef=0.0, share_coef=0.5)
    built._shares[1:] = 0.0
    part = Transitions(*(f.double() if f.is_floating_point() else f for f in everything(built)))
    actor, _ = built.controller.agent.double(), built.critic.double()
    found = torch.autograd.grad(built.loss(part)[0], list(actor.parameters()))
    generator = torch.Generator().manual_seed(0)
    way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in actor.parameters()]

    @torch.no_grad()
    def chosen() -> Tensor:
        log_pi = log_policy(actor.pairs(part.inputs), part.avail)[0]
        return log_pi.gather(-1, part.actions.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def after(size: float) -> float:
        torch._foreach_add_(list(actor.parameters()), way, alpha=size)
        value = float(built.loss(part._replace(log_probs=part.log_probs + chosen() - start))[0])
        torch._foreach_sub_(list(actor.parameters()), way, alpha=size)
        return value

    start = chosen()
    assert (start - part.log_probs).abs().max() > 0.1
    slope = (after(1e-6) - after(-1e-6)) / 2e-6
    assert slope == pytest.approx(sum(float((g * w).sum()) for g, w in zip(found, way, strict=True)), rel=1e-5)


def test_the_critics_error_falls_on_a_frozen_batch() -> None:
    built = seac(lr=3e-3)
    part = everything(built)

    @torch.no_grad()
    def error() -> float:
        """Not weighted by rho, which moves with the policies."""
        return float((part.returns - built.critic.pairs(part.inputs).squeeze(-1)).square().mean())

    first = error()
    for _ in range(60):
        step(built.optimizer, built.loss(part)[0], built.options.grad_norm_clip, clip_each_agent_)
    assert error() < 0.6 * first


def test_an_agent_without_a_choice_teaches_no_policy_but_values() -> None:
    built = seac(entropy_coef=0.1)
    batch = played(built.controller, LENGTHS, ENDS)
    batch.data["avail_actions"][:, :, 1] = torch.tensor([1, 0, 0, 0])
    batch.data["actions"][:, :, 1] = 0
    batch.data["log_probs"][:, :, 1] = 0.0
    other = EpisodeBatch({name: tensor.clone() for name, tensor in batch.data.items()}, batch.n_actions)
    other.data["obs"][:, :, 1] += 2.0
    n_actor = len(list(built.controller.parameters()))
    found = [gradients(built, everything(built, b)) for b in (batch, other)]
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*(g[:n_actor] for g in found), strict=True))
    assert not all(torch.allclose(*pair, atol=1e-6) for pair in zip(*(g[n_actor:] for g in found), strict=True))


def test_junk_behind_the_end_changes_no_bit() -> None:
    built = seac()
    clean, batch = (played(built.controller, LENGTHS, ENDS) for _ in range(2))
    for b, length in enumerate(LENGTHS):
        for name in ("obs", "avail_actions"):
            batch.data[name][b, length + 1 :] = 100 * (1 - batch.data[name][b, length + 1 :])
        for name in ("reward", "terminated", "log_probs"):
            batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
        batch.data["actions"][b, length:] = 0
    found = everything(built, batch)
    assert len(found.returns) == sum(LENGTHS)
    assert all(map(torch.equal, gradients(built, found), gradients(built, everything(built, clean))))


@pytest.mark.parametrize("end", [True, False])
def test_returns_end_with_the_value_of_who_earned_them_at_a_time_limit_only(end: bool) -> None:
    built = seac(n_step=5, gamma=0.9)
    batch = played(built.controller, [4], [end])
    returns = built.transitions(batch).returns
    rewards = batch["reward"][0, :4, 0]
    for k in range(N):
        last = 0.0 if end else float(perceptron(built.critic, k, batch["obs"][0, 4, k]).detach().squeeze())
        for t in range(4):
            wanted = sum(0.9**u * float(rewards[t + u]) for u in range(4 - t)) + 0.9 ** (4 - t) * last
            assert float(returns[t, k]) == pytest.approx(wanted, abs=1e-5)


def test_every_agent_has_its_own_gradient_clip() -> None:
    weights = [nn.Parameter(torch.zeros(3, 4, 2)), nn.Parameter(torch.zeros(3, 1, 2))]
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(w.shape, generator=generator) * torch.tensor([0.01, 1.0, 5.0]).view(3, 1, 1) for w in weights]
    for weight, gradient in zip(weights, given, strict=True):
        weight.grad = gradient.clone()
    norms = [torch.cat([g[i].flatten() for g in given]).norm() for i in range(3)]
    assert float(clip_each_agent_(weights, 0.5)) == pytest.approx(float(max(norms)), rel=1e-5)
    for i in range(3):
        scale = min(1.0, 0.5 / float(norms[i]))
        for weight, gradient in zip(weights, given, strict=True):
            assert weight.grad is not None
            assert torch.allclose(weight.grad[i], scale * gradient[i], rtol=1e-4, atol=1e-7)


def test_eight_agents_and_their_pairs_fit_into_a_step_of_fixed_size() -> None:
    """8m, which the paper could not run: what a gradient step keeps depends on batch_size, not on the episodes."""
    parts = small_parts("seac", "skirmish", "env_args.map_name=8m", "env_args.episode_limit=12")
    learner = parts.learner
    assert isinstance(learner, SeacLearner)
    sizes: list[int] = []
    learner.critic.layers[0].register_forward_hook(lambda module, given, out: sizes.append(given[0].shape[1]))
    play(parts, start_clock(), 1)
    parts.close()
    assert learner.updates >= 1
    # The first pass is over the episodes as they are; steps follow, none of twice batch_size transitions.
    assert max(sizes[1:]) < 2 * learner.options.batch_size * 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("agent=mlp",), "what fits: separate_mlp"),
        (("critic=null",), "needs a critic"),
        (("mac=policy_mac", "agent=mlp"), "what fits: separate_policy_mac"),
        (("batch_size_run=8", "buffer_size=4"), "buffer_size = 4 loses episodes .*use buffer_size >= 8"),
        (("buffer_size=10000000000",), r"buffer_size = 10000000000 episodes of 51 steps take [\d,]+ GB"),
    ],
)
def test_parts_that_do_not_fit_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_parts("seac", "navigation", *overrides)
