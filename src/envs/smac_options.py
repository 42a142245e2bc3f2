"""The options that SMAC gives its users, by SMAC's names and with its defaults: for the game and for the simulator."""

from __future__ import annotations

from pydantic import Field

from components.registry import Options


class SmacOptions(Options):
    """What is observed and rewarded on a map."""

    map_name: str = Field("3m", description="the map")
    step_mul: int = Field(8, ge=1, description="game loops of a step; 16 are a second")
    move_amount: float = Field(2.0, gt=0, description="map units that a move action goes")
    continuing_episode: bool = Field(False, description="a battle out of time is cut off, not over")

    obs_all_health: bool = Field(True, description="agents see the health of others")
    obs_own_health: bool = Field(True, description="agents see their own health; always with obs_all_health")
    obs_last_action: bool = Field(False, description="agents see the last actions of others")
    obs_pathing_grid: bool = Field(False, description="agents see which places around them can be walked on")
    obs_timestep_number: bool = Field(False, description="agents see how far the episode is")
    obs_instead_of_state: bool = Field(False, description="the state is all agents' observations")
    state_last_action: bool = Field(True, description="the state holds the last actions")
    state_timestep_number: bool = Field(False, description="the state says how far the episode is")

    reward_sparse: bool = Field(False, description="1 for a win, -1 for a defeat, nothing else")
    reward_only_positive: bool = Field(True, description="losses of the own side cost nothing")
    reward_death_value: float = Field(10.0, ge=0, description="for each enemy killed")
    reward_win: float = Field(200.0, ge=0, description="for winning")
    reward_defeat: float = Field(0.0, le=0, description="for losing")
    reward_negative_scale: float = Field(0.5, ge=0, description="factor on losses, unless reward_only_positive")
    reward_scale: bool = Field(True, description="divide rewards so that a perfect episode has reward_scale_rate")
    reward_scale_rate: float = Field(20.0, gt=0, description="the return of a perfect episode, but for shields")
