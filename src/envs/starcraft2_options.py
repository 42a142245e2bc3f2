"""The options of ``sc2``. Importing them needs nothing of StarCraft."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from envs.smac_options import SmacOptions
from envs.smac_tasks import CombatOptions

# Options that smac takes as they are.
_OF_SMAC = (
    *SmacOptions.model_fields,
    *("difficulty", "game_version", "obs_terrain_height", "replay_dir", "replay_prefix"),
)


class Sc2Options(SmacOptions, CombatOptions):
    """``env_args`` of ``sc2``: SMAC's, and how long the game is waited for."""

    map_name: str = Field("3m", description="one of SMAC's maps")
    difficulty: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "A"] = Field(
        "7", description="of the game's computer player; 7 is very hard, 8 to A cheat"
    )
    game_version: str | None = Field(None, description="of StarCraft II, such as 4.10; null: the newest installed")
    obs_terrain_height: bool = Field(False, description="agents see how high the ground around them is")
    save_replays: bool = Field(False, description="write a replay of each game, with all its episodes, when it ends")
    replay_dir: str = Field("", description="where replays go; empty: the game's Replays folder")
    replay_prefix: str = Field("", description="start of their file names; empty: the map's name")
    start_timeout: int = Field(180, ge=1, description="seconds that the game may take to start")
    step_timeout: float = Field(60.0, gt=0, description="seconds that it may take to answer")
    max_restarts: int = Field(5, ge=0, description="new games in a row without an episode played to its end")

    @model_validator(mode="after")
    def _grids_have_whole_cells(self) -> Self:
        if (self.obs_pathing_grid or self.obs_terrain_height) and not self.move_amount.is_integer():
            raise ValueError(
                f"obs_pathing_grid and obs_terrain_height look at cells that are whole moves away: "
                f"move_amount = {self.move_amount} must be a whole number"
            )
        return self

    def of_smac(self) -> dict[str, Any]:
        """The arguments of smac's environment."""
        arguments = {name: getattr(self, name) for name in _OF_SMAC}
        # smac indexes grids with it.
        whole = {"move_amount": int(self.move_amount)} if self.move_amount.is_integer() else {}
        return arguments | whole
