"""LPMARL's controller: assigns agents to tasks when a decision is due, then lets every agent act on its own task.

Shape legend: R rows (environments that still act), N agents, M tasks, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.action_selectors import greedy, soft
from components.episode_buffer import EpisodeBatch, FieldSpec
from components.errors import UserError
from components.registry import did_you_mean
from components.schedules import linear
from controllers.assignment_noise import AssignmentNoise, AssignmentNoiseOptions
from controllers.base import Array, Clock, Controller, Decision, Rows, numpy_rows
from controllers.high_policies import HIGH_POLICIES
from controllers.task_structure import (
    Observed,
    distance_to_tasks,
    env_actions,
    low_availability,
    network_dims,
    task_structure,
)
from envs.base import EnvInfo, TaskInfo
from modules.agents.lpmarl_agent import LpmarlAgent
from modules.assignment import (
    SOLVERS,
    Assignment,
    InfeasibleAssignment,
    make_problem,
    margin,
    policies,
    regrets,
    relax_capacity,
    solve,
)
from modules.graph import Graph, build_graph

# The cost that needs no environment to know it.
DISTANCE = "distance"


class LpmarlOptions(AssignmentNoiseOptions):
    """When and how agents are assigned, and how both levels explore."""

    high_policy: Literal["lp", "softmax", "lp_distance", "lp_cost", "greedy", "random_feasible"] = Field(
        "lp",
        description="assignment by the LP on learned scores, each agent's own best score (No-LP), the LP on distance "
        "or on assignment_cost, nearest task, or random but feasible",
    )
    assignment_cost: str = Field(
        "distance", description="what high_policy: lp_cost minimizes: distance, or a cost that the environment knows"
    )
    cost_power: float = Field(
        1.0, gt=0, description="assignment_cost to this power; large ones avoid the latest arrival"
    )
    assignment_solver: str = Field("auto", description="auto (compiled kernel; GLOP for a general LP), glop or lsa")
    capacity_rule: Literal["error", "relax"] = Field(
        "error", description="when the tasks cannot hold the agents: stop, or raise capacities to ceil(N / M)"
    )
    redecide: Literal["every_k", "event", "start"] = Field(
        "every_k",
        description="assign every decision_interval steps; when an agent or task died and when an agent first can act "
        "on a task; or once per episode",
    )
    decision_interval: int = Field(10, ge=1, description="steps between assignments with redecide: every_k")
    low_greedy_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of training episodes whose low level acts as in tests; the high level then learns from "
        "these alone (0: from all)",
    )
    epsilon_start: float = Field(1.0, ge=0, le=1, description="probability of a uniform low-level action at the start")
    epsilon_finish: float = Field(0.05, ge=0, le=1, description="the same after the decay")
    epsilon_anneal_time: int = Field(15_000, ge=1, description="environment steps of the linear decay")


class LpmarlController(Controller):
    """High level: scores -> assignment LP. Low level: softmax policy on the observation graph, given the own task.

    Args:
        info: shapes of a task-structured environment.
        options: decisions and exploration.
        agent: ``agent(agent_dim, task_dim, n_low_actions)`` builds the actor.
        rng: draws exploration.
        device: where the networks run.

    Raises:
        UserError: the environment has no task structure, or the solver is unknown or lacks its package.
    """

    reference = MappingProxyType({"high_policy": "lp_distance"})

    def __init__(
        self,
        info: EnvInfo,
        options: LpmarlOptions,
        agent: Callable[[int, int, int], LpmarlAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        # Looked up here so that an unknown solver or a missing package stops the run before it starts.
        require_solver(options.assignment_solver)
        self.options = options
        self.learned_policy = options.high_policy
        self.policy = HIGH_POLICIES[options.high_policy]
        self.device = device
        self.n_agents = info.n_agents
        self.tasks = task_structure(info)
        self._cost = require_cost(options, self.tasks)
        self.fields = (*Observed._fields, "avail_actions", *([self._cost] if self._cost else []))
        self.agent = agent(*network_dims(info)).to(device)
        self._rng = rng
        self.noise = AssignmentNoise(options, info.n_agents, self.tasks.n_tasks, rng)
        self._assign = np.zeros((0, info.n_agents), dtype=np.int64)
        self._alive = np.zeros((0, 0), dtype=np.bool_)
        self._contact = np.zeros(0, dtype=np.bool_)
        self._low_is_greedy = np.zeros(0, dtype=np.bool_)

    @override
    def extra_fields(self) -> dict[str, FieldSpec]:
        return {
            "assign": FieldSpec((self.n_agents, 1), torch.int64),
            "decide": FieldSpec((1,), torch.uint8),
            "low_actions": FieldSpec((self.n_agents, 1), torch.int64),
        }

    @override
    def modules(self) -> dict[str, nn.Module]:
        return {"agent": self.agent}

    @override
    def begin_episodes(self, batch_size: int) -> None:
        self._assign = np.zeros((batch_size, self.n_agents), dtype=np.int64)
        self.noise.begin_episodes(batch_size)
        self._alive = np.zeros((batch_size, self.n_agents + self.tasks.n_tasks), dtype=np.bool_)
        self._contact = np.zeros(batch_size, dtype=np.bool_)

    @override
    @torch.no_grad()
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        seen = Observed(*(batch[name][rows, t].to(self.device) for name in Observed._fields))
        where = numpy_rows(rows)
        due = self._due(seen, batch["avail_actions"][rows, t], t, where)
        if due.any():
            deciders = np.arange(len(self._assign))[where][due]
            now = torch.from_numpy(due)
            decided = Observed(*(field[now] for field in seen))
            cost = batch[self._cost][rows, t][now] if self._cost else None
            self._assign[deciders] = self._decide(deciders, decided, cost, clock, test_mode)
        assign = self._assign[where]
        tasks = torch.from_numpy(assign).to(self.device)
        logits = self.agent.logits(self.in_sight(build_graph(*seen[:4])), tasks).cpu().numpy()
        avail = low_availability(batch["avail_actions"][rows, t], tasks.cpu(), self.tasks.first_task_action).numpy()
        as_in_tests = self._as_in_tests(t)[where] if self.options.low_greedy_share and not test_mode else None
        low = greedy(logits, avail) if test_mode else soft(logits, avail, self._epsilon(clock), self._rng)
        if as_in_tests is not None:
            low = np.where(as_in_tests[:, None], greedy(logits, avail), low)
            due = due & as_in_tests
        extras = {"assign": assign[..., None], "decide": due[:, None], "low_actions": low[..., None]}
        return Decision(env_actions(low, assign, self.tasks.first_task_action), extras)

    def _as_in_tests(self, t: int) -> Array:
        """[B] the training episodes whose low level does not explore; drawn at their first step."""
        if t == 0:
            self._low_is_greedy = self._rng.random(len(self._assign)) < self.options.low_greedy_share
        return self._low_is_greedy

    def _epsilon(self, clock: Clock) -> float:
        options = self.options
        return linear(options.epsilon_start, options.epsilon_finish, clock.env_steps / options.epsilon_anneal_time)

    def in_sight(self, graph: Graph) -> Graph:
        """The observation graph, which the low level acts on: whatever the assignment, agents act decentrally."""
        return graph.within_sight(self.tasks.agent_sight, self.tasks.task_sight)

    def _decide(self, environments: Array, seen: Observed, cost: Tensor | None, clock: Clock, test_mode: bool) -> Array:
        """[R, N] new tasks for the states of these environments; ``cost`` [R, N, M] where the policy goes by one."""
        noise = None if test_mode else self.noise.of(environments)
        return self.assign(seen, clock, noise, cost)

    @torch.no_grad()
    def assign(self, seen: Observed, clock: Clock, noise: Array | None, cost: Tensor | None = None) -> Array:
        """[R, N] the task of each agent; 0 for dead agents.

        Args:
            seen: the states that need an assignment.
            clock: drives the size of the noise.
            noise: [R, 2, N, M] what exploration draws, or ``None`` for none.
            cost: [R, N, M] of ``high_policy: lp_cost``.

        Raises:
            UserError: the tasks cannot hold the agents and ``capacity_rule`` is ``error``.
        """
        try:
            index = self._index(seen, clock, noise, cost)
        except InfeasibleAssignment as error:
            raise UserError(f"{error} (capacity_rule: relax raises them to the least that holds all agents)") from error
        return np.maximum(index, 0)

    def allowed(self, capacity: Array, agent_alive: Array, task_alive: Array) -> Array:
        """[R, M] capacities after the capacity rule."""
        if self.options.capacity_rule == "relax":
            return relax_capacity(capacity, agent_alive, task_alive)
        return capacity

    def _index(self, seen: Observed, clock: Clock, noise: Array | None, cost: Tensor | None) -> Array:
        places = self._places(seen)
        if self.policy.goes_by == "chance":
            return policies.random_feasible(self._rng, *places, self.options.assignment_solver)
        scores = self._scores(seen, cost)
        if self.policy.learns and noise is not None:
            scores = self.noise.add(scores, noise, clock, self.policy.feasible)
        return self._solve(scores, places).index if self.policy.feasible else policies.greedy(-scores, *places[1:])

    def _places(self, seen: Observed) -> tuple[Array, Array, Array]:
        """Capacities after the capacity rule [R, M], living agents [R, N] and living tasks [R, M]."""
        masks = seen.agent_alive.cpu().numpy(), seen.task_alive.cpu().numpy()
        return self.allowed(seen.capacity.cpu().numpy(), *masks), *masks

    def _scores(self, seen: Observed, cost: Tensor | None) -> Array:
        """[R, N, M] what the assignment goes by, before exploration: the network's C, or minus a cost."""
        if self.policy.goes_by == "cost":
            given = -((distance_to_tasks(seen) if cost is None else cost).double() ** self.options.cost_power)
        elif self.policy.goes_by == "distance":
            given = -distance_to_tasks(seen)
        else:
            given = self._learned_scores(build_graph(*seen[:4]))
        return given.double().cpu().numpy()

    def _learned_scores(self, graph: Graph) -> Tensor:
        return self.agent.scores(graph) if self.policy.feasible else self.agent.score_logits(graph)

    def _solve(self, scores: Array, places: tuple[Array, Array, Array]) -> Assignment:
        return solve(make_problem(scores, *places), self.options.assignment_solver)

    @override
    @torch.no_grad()
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        if not self.policy.feasible or self.policy.goes_by == "chance":
            return {}
        found: dict[str, Array] = {}
        decided = batch["decide"].squeeze(-1).bool()
        for t in torch.nonzero(decided.any(0)).flatten().tolist():
            # All deciding rows of a step at once, as in `act`: batches of another size may round differently.
            rows = torch.nonzero(decided[:, t]).flatten()
            seen = Observed(*(batch[name][rows, t].to(self.device) for name in Observed._fields))
            cost = batch[self._cost][rows, t] if self._cost else None
            scores, places = self._scores(seen, cost), self._places(seen)
            solved = self._solve(scores, places)
            values = {"scores": scores, "allowed": places[0], "prices": solved.price}
            values |= {"regrets": regrets(solved), "margin": margin(solved)}
            for name, value in values.items():
                if value is not None:
                    whole = found.setdefault(name, np.full((*decided.shape, *value.shape[1:]), np.nan))
                    whole[rows.numpy(), t] = value
        if (
            "allowed" in found
            and not (decided.numpy()[..., None] & (found["allowed"] != batch["capacity"].numpy())).any()
        ):
            del found["allowed"]
        return found

    def _due(self, seen: Observed, avail: Tensor, t: int, where: slice | Array) -> Array:
        """[R] bool: which rows get a new assignment at step t."""
        r = len(seen.agent_alive)
        every_k = self.options.redecide == "every_k"
        due = np.full(r, t == 0 or (every_k and t % self.options.decision_interval == 0))
        if self.options.redecide == "event":
            alive = torch.cat([seen.agent_alive, seen.task_alive], 1).cpu().numpy()
            contact = self._contact[where] | self._can_act_on_a_task(avail)
            due |= (alive != self._alive[where]).any(1) | (contact != self._contact[where])
            self._alive[where], self._contact[where] = alive, contact
        return due

    def _can_act_on_a_task(self, avail: Tensor) -> Array:
        """[R] bool: some agent has an action that names a task; ``avail`` [R, N, A]."""
        first = self.tasks.first_task_action
        if first is None:
            return np.zeros(len(avail), dtype=np.bool_)
        can: Array = (avail[..., first:] > 0).flatten(1).any(1).numpy()
        return can


def require_solver(name: str) -> None:
    """Raises ``UserError`` when the assignment solver is unknown or lacks its package."""
    try:
        SOLVERS[name]
    except UserError as error:
        raise UserError(f"assignment_solver = {name!r}: {error}") from error


def require_cost(options: LpmarlOptions, tasks: TaskInfo) -> str | None:
    """The environment's field that the assignment minimizes, or ``None`` when it needs none.

    Raises:
        UserError: the environment does not know that cost.
    """
    name = options.assignment_cost
    if options.high_policy != "lp_cost" or name == DISTANCE:
        return None
    if name not in tasks.costs:
        known = [DISTANCE, *tasks.costs]
        raise UserError(f"assignment_cost = {name!r}: this environment does not know it{did_you_mean(name, known)}")
    return name
