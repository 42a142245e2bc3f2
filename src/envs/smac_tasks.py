"""Enemies as tasks, the same for the game and for the simulator."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.registry import Options


class CombatOptions(Options):
    """How many agents an enemy takes, and what agents earn for theirs."""

    capacity: Literal["paper", "none", "shots_to_kill", "fixed"] = Field(
        "paper",
        description="agents for each living enemy at most: half of the living enemies, rounded up; all; as many as "
        "kill it with one volley each; or fixed_capacity. Raised where it cannot hold the living agents",
    )
    fixed_capacity: int = Field(2, ge=1, description="of capacity: fixed")
    task_rewards: Literal["kill", "damage"] = Field(
        "kill", description="agents earn 1 when their enemy dies; with damage also the share of its health it loses"
    )
    episode_limit: int | None = Field(None, ge=1, description="steps of an episode; null: the map's")
