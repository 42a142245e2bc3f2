"""Options of ``navigation`` and ``constrained_navigation``: what each is, and which go together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.registry import Options


class ConstrainedNavigationOptions(Options):
    """``env_args`` of ``constrained_navigation``."""

    n_landmarks: int = Field(3, ge=1, le=1000, description="M, landmarks")
    n_agents: int = Field(5, ge=1, le=1000, description="N, agents; at least one for each landmark")
    agent_radius: float = Field(
        0.05, ge=0, le=1, description="agents touch at twice this distance (arena half-width 1)"
    )
    occupancy_radius: float = Field(0.2, gt=0, le=2, description="an agent within it counts for its nearest landmark")
    sight_radius: float = Field(1.0, gt=0, description="distance up to which agents observe each other (graph methods)")
    episode_limit: int = Field(50, ge=1, description="steps after which an episode is truncated")
    rewards: Literal["sparse", "dense"] = Field("sparse", description="dense adds distance and collision terms")
    reach_reward: Literal["step", "delta", "first"] = Field(
        "step", description="per step inside a landmark; on entering, minus on leaving; or once per episode"
    )
    capacities: list[int] | None = Field(
        None, description="agents that each landmark needs, summing to n_agents; null: drawn anew in every episode"
    )
    min_agents: int | None = Field(
        None, ge=1, description="agents in an episode are drawn from min_agents..n_agents; null: always n_agents"
    )
    min_landmarks: int | None = Field(
        None,
        ge=1,
        description="landmarks in an episode are drawn from min_landmarks..n_landmarks, at most one per agent; null: "
        "always n_landmarks",
    )

    @property
    def fewest(self) -> tuple[int, int]:
        """The fewest agents and landmarks of an episode."""
        return self.min_agents or self.n_agents, self.min_landmarks or self.n_landmarks

    @model_validator(mode="after")
    def _each_landmark_needs_an_agent(self) -> ConstrainedNavigationOptions:
        if self.n_landmarks > self.n_agents:
            raise ValueError(
                f"env_args.n_landmarks = {self.n_landmarks} is more than env_args.n_agents = {self.n_agents}, but "
                f"every landmark needs at least one agent: use n_landmarks <= {self.n_agents}"
            )
        return self

    @model_validator(mode="after")
    def _capacities_fit(self) -> ConstrainedNavigationOptions:
        if self.capacities is None:
            return self
        given, n, m, total = self.capacities, self.n_agents, self.n_landmarks, sum(self.capacities)
        if len(given) != m:
            fault = f"has {len(given)} entries, but env_args.n_landmarks = {m}: give {m} capacities"
        elif min(given) < 1:
            fault = "has an entry below 1, but every landmark needs at least one agent: use entries >= 1"
        elif total < n:
            fault = f"sums to {total} and cannot hold the {n} agents: they must sum to env_args.n_agents = {n}"
        elif total > n:
            fault = f"sums to {total}, more than the {n} agents can fill: they must sum to env_args.n_agents = {n}"
        else:
            return self
        raise ValueError(f"env_args.capacities = {given} {fault}")

    @model_validator(mode="after")
    def _drawn_sizes_fit(self) -> ConstrainedNavigationOptions:
        low_n, low_m = self.fewest
        if low_n > self.n_agents:
            fault = f"env_args.min_agents = {low_n} is more than env_args.n_agents = {self.n_agents}: use at most that"
        elif low_m > self.n_landmarks:
            fault = (
                f"env_args.min_landmarks = {low_m} is more than env_args.n_landmarks = {self.n_landmarks}: use at most "
                "that"
            )
        elif self.min_agents is not None and low_m > low_n:
            key = "n_landmarks (min_landmarks is null)" if self.min_landmarks is None else "min_landmarks"
            fault = (
                f"env_args.{key} = {low_m} is more than env_args.min_agents = {low_n}: an episode of {low_n} agents "
                f"holds at most as many landmarks; use min_landmarks <= {low_n}"
            )
        elif self.capacities is not None and (self.min_agents, self.min_landmarks) != (None, None):
            fault = (
                f"env_args.capacities = {self.capacities} fixes the sizes that env_args.min_agents and "
                "env_args.min_landmarks draw: give one or the other"
            )
        else:
            return self
        raise ValueError(fault)


class NavigationOptions(ConstrainedNavigationOptions):
    """``env_args`` of ``navigation``: as many agents as landmarks, simple_spread's agent size."""

    n_agents: int = Field(3, ge=1, le=1000, description="N, agents; equal to n_landmarks")
    agent_radius: float = Field(
        0.15, ge=0, le=1, description="agents touch at twice this distance (arena half-width 1)"
    )

    @model_validator(mode="after")
    def _one_agent_per_landmark(self) -> NavigationOptions:
        if self.n_landmarks != self.n_agents:
            raise ValueError(
                f"env_args.n_agents = {self.n_agents} differs from env_args.n_landmarks = {self.n_landmarks}: plain "
                "navigation has one agent per landmark; use env-config constrained_navigation for other numbers"
            )
        return self

    @model_validator(mode="after")
    def _drawn_sizes_fit(self) -> NavigationOptions:
        if (self.min_agents, self.min_landmarks) != (None, None):
            raise ValueError(
                f"env_args.min_agents = {self.min_agents} and env_args.min_landmarks = {self.min_landmarks}: plain "
                "navigation draws no sizes; use env-config constrained_navigation"
            )
        return self
