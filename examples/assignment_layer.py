"""Learns what agent-task pairs are worth from observed assignments: ``python examples/assignment_layer.py``.

Somebody assigns 6 agents to 4 tasks, optimally and within capacities that differ from state to state. We see features
of agents and tasks, the capacities, and who went where; never what a pair was worth. A network scores the pairs, the
LP assigns. Plotted is the regret: what the assignments chosen in new states are worth less than the best ones,
relative to random assignments that keep the capacities.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # not needed where lpmarl is installed
from modules.assignment import AssignmentLayer, fenchel_young_loss, make_problem, one_hot, random_feasible, solve

AGENTS, TASKS, FEATURES = 6, 4, 4
TRAIN, TEST, BATCH, EVERY = 2000, 1000, 100, 20
LAYER, NOISE = AssignmentLayer("blackbox"), torch.Generator().manual_seed(0)
# Scores [B, N, M], capacities [B, M] and the assignments seen [B, N] -> loss. Only two of them know of capacities.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "Fenchel-Young loss": lambda c, k, seen: fenchel_young_loss(c, seen, k, generator=NOISE).mean(),
    "blackbox layer, agents at other tasks": lambda c, k, seen: -LAYER(c, k).gather(2, seen[..., None]).sum(),
    "cross-entropy, LP only afterwards": lambda c, k, seen: cross_entropy(c.flatten(0, 1), seen.flatten()),
}


class States:
    """Random states: features of all pairs, capacities, what the pairs are worth, and the best assignments."""

    def __init__(self, count: int, taste: np.ndarray, rng: np.random.Generator) -> None:
        agents, tasks = rng.normal(size=(count, AGENTS, 1, FEATURES)), rng.normal(size=(count, 1, TASKS, FEATURES))
        both = np.broadcast_arrays(agents, tasks)
        self.pairs = torch.tensor(np.concatenate(both, -1), dtype=torch.float32)
        self.worth = -np.linalg.norm(agents @ taste - tasks, axis=-1)
        self.capacity = torch.tensor(rng.multinomial(AGENTS, np.full(TASKS, 1 / TASKS), count))
        self.best = solve(make_problem(self.worth, self.capacity))
        self.seen = torch.tensor(self.best.index)
        living = np.ones((count, AGENTS), np.bool_), np.ones((count, TASKS), np.bool_)
        self.random = random_feasible(rng, self.capacity, *living)

    def regret(self, network: nn.Module) -> float:
        """0: as good as the best assignments; 1: as bad as random ones."""
        with torch.no_grad():
            found = solve(make_problem(network(self.pairs).squeeze(-1), self.capacity)).index
        best, learned, at_random = (
            (one_hot(index, TASKS) * self.worth).sum() for index in (self.best.index, found, self.random)
        )
        return float((best - learned) / (best - at_random))


def learn(name: str, train: States, test: States, steps: int) -> list[float]:
    """Regret in the test states after every ``EVERY`` steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2 * FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    regrets = [test.regret(network)]
    for step in range(1, steps + 1):
        some = torch.randint(TRAIN, (BATCH,))
        optimizer.zero_grad()
        LOSSES[name](network(train.pairs[some]).squeeze(-1), train.capacity[some], train.seen[some]).backward()
        optimizer.step()
        if step % EVERY == 0:
            regrets.append(test.regret(network))
    print(f"{name:38} regret {regrets[0]:6.1%} before training, {regrets[-1]:6.2%} after {steps} steps")
    return regrets


def main() -> None:
    """Trains once with each loss, prints and plots."""
    parser = argparse.ArgumentParser(description="Learn scores from observed assignments, three ways.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("assignment_layer.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(FEATURES, FEATURES)) / 2
    train, test = States(TRAIN, taste, rng), States(TEST, taste, rng)
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, color in zip(LOSSES, ("#0072b2", "#d55e00", "#6b7680"), strict=True):
        regrets = learn(name, train, test, options.steps)
        axes.plot(np.arange(len(regrets)) * EVERY, regrets, color=color, label=name)
    axes.set(yscale="log", xlabel="training steps", ylabel="regret in new states (random: 1)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(options.output, dpi=120)
    print(options.output)


if __name__ == "__main__":
    main()
