"""Units and maps of the skirmish simulator, read from ``config/skirmish``; a map may also be a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from components.config_checks import Owner, validate
from components.config_layers import CONFIG_ROOT, Layer
from components.errors import UserError
from components.registry import Options, did_you_mean
from components.yaml_loader import LoadedYaml, load_yaml

ROOT = CONFIG_ROOT / "skirmish"
# Side of every map, in map units.
MAP_SIDE = 32

Point = tuple[float, float]
Factor = Annotated[float, Field(gt=0)]
Cells = Annotated[int, Field(ge=0, le=MAP_SIDE)]
Targets = Literal["nearest", "lowest_life", "random"]
DIFFICULTIES = ("easy", "medium", "hard", "full")
Difficulty = Literal["easy", "medium", "hard", "full"]


class Unit(Options):
    """A kind of unit; lengths in map units, times in seconds of 16 game loops."""

    type: int = Field(ge=0, description="the game's number of this unit")
    life: float = Field(gt=0, description="life at the start")
    life_regeneration: float = Field(0.0, ge=0, description="life regained per second")
    shield: float = Field(0.0, ge=0, description="shield at the start; it regenerates")
    armor: float = Field(0.0, ge=0, description="damage that each hit on its life loses")
    armored: bool = Field(False, description="takes the bonus against armored units")
    radius: float = Field(gt=0, description="units do not overlap")
    speed: float = Field(ge=0, description="per second")
    range: float = Field(ge=0, description="reach of its weapon, from rim to rim")
    damage: float = Field(gt=0, description="of one hit")
    bonus_armored: float = Field(0.0, ge=0, description="more damage against armored units")
    hits: int = Field(1, ge=1, description="hits of one volley")
    period: float = Field(gt=0, description="seconds between volleys")
    flight: int = Field(0, ge=0, description="game loops until a volley arrives; 0: at once")
    max_cooldown: float = Field(gt=0, description="game loops that observed cooldowns are divided by")


class Group(Options):
    """Units that start at one place."""

    unit: str = Field(description="a unit's name")
    count: int = Field(1, ge=1, le=64, description="how many")
    at: Point = Field(description="where they start, give or take the map's spread")
    guard: bool = Field(False, description="stay there until somebody comes near, instead of attacking")


class Strength(Options):
    """What a level of difficulty changes about the enemies; factors on their units."""

    cooldown: Factor = Field(1.0, description="factor on the time between volleys: above 1 is easier")
    damage: Factor = Field(1.0, description="factor on the damage; beware, it acts in steps of whole shots")
    speed: Factor = Field(1.0, description="factor on the speed")
    reaction: int = Field(0, ge=0, description="game loops that a new target costs")
    targets: Targets = Field("nearest", description="which ally in reach an enemy shoots")


class SkirmishMap(Options):
    """One map: who fights whom, where, and how strong the enemies are at each level."""

    limit: int = Field(ge=1, description="steps of an episode")
    allies: tuple[Group, ...] = Field(min_length=1, description="groups of agents")
    enemies: tuple[Group, ...] = Field(min_length=1, description="groups of enemies")
    goal: tuple[float, ...] = Field(
        (), description="[x, y] where attacking enemies go, or [x, y, x, y]: a point drawn between the two"
    )
    arena: tuple[tuple[Cells, Cells, Cells, Cells], ...] = Field(
        ((0, 0, MAP_SIDE, MAP_SIDE),), min_length=1, description="rectangles [x0, y0, x1, y1] of walkable cells"
    )
    spread: float = Field(1.0, ge=0, description="units start this far from their group's place, at most, in x and y")
    type_bits: int = Field(0, ge=0, description="columns that say a unit's type; 0 where there is only one")
    units: dict[str, dict[str, float]] = Field(default_factory=dict, description="changed units: name -> what changes")
    difficulty: dict[Difficulty, Strength] = Field(default_factory=dict, description="level -> the enemies' strength")


@dataclass(frozen=True)
class LoadedMap:
    """A map with the units that it uses.

    Attributes:
        name: as given.
        layout: the file's content.
        units: name -> unit, with the map's changes.
    """

    name: str
    layout: SkirmishMap
    units: dict[str, Unit]

    def strength(self, difficulty: Difficulty) -> Strength:
        """The enemies' strength at a level; the units' own where the map does not say."""
        return self.layout.difficulty.get(difficulty, Strength.model_validate({}))


def map_names(root: Path = ROOT) -> list[str]:
    """The maps that come with the framework."""
    return sorted(path.stem for path in (root / "maps").glob("*.yaml"))


def load_map(name: str, root: Path = ROOT) -> LoadedMap:
    """Reads a map.

    Args:
        name: one of ``map_names()``, or the path of a YAML file.
        root: where units and maps lie.

    Raises:
        UserError: unknown name, unreadable file, or all that is wrong in it, with file and line.
    """
    path = Path(name) if name.endswith(".yaml") else root / "maps" / f"{name}.yaml"
    if not path.is_file():
        if name.endswith(".yaml"):
            raise UserError(f"no such map file: {path}")
        raise UserError(
            f"env_args.map_name: unknown map {name!r}{did_you_mean(name, map_names(root))}, or the path of a .yaml file"
        )
    shown = path.relative_to(root.parents[1]).as_posix() if path.is_relative_to(root.parents[1]) else str(path)
    given = load_yaml(path, shown)
    errors: list[str] = []
    layout = _validated(SkirmishMap, f"map {name!r}", given, shown, errors)
    if errors or not isinstance(layout, SkirmishMap):
        raise UserError("\n".join(errors))
    units = _units(layout, root, shown, errors)
    errors += _faults(layout, units, shown)
    if errors:
        raise UserError("\n".join(errors))
    return LoadedMap(name, layout, units)


def _units(layout: SkirmishMap, root: Path, shown: str, errors: list[str]) -> dict[str, Unit]:
    """All units, those that the map changes changed."""
    path = root / "units.yaml"
    source = path.relative_to(root.parents[1]).as_posix()
    loaded = load_yaml(path, source)
    units: dict[str, Unit] = {}
    unknown = sorted(set(layout.units) - set(loaded.values))
    errors += [f"{shown}: units.{name}: unknown unit{did_you_mean(name, loaded.values)}" for name in unknown]
    for name, values in loaded.values.items():
        changed = LoadedYaml({**values, **layout.units.get(name, {})}, loaded.lines)
        unit = _validated(Unit, f"unit {name!r}", changed, f"{shown} or {source}", errors)
        if isinstance(unit, Unit):
            units[name] = unit
    return units


def _validated(model: type[Options], label: str, given: LoadedYaml, shown: str, errors: list[str]) -> Options | None:
    sources = {key: f"{shown}:{given.lines[key]}" if key in given.lines else shown for key in given.values}
    unknown = [key for key in given.values if key not in model.model_fields]
    errors += [f"{key} ({sources[key]}): unknown key{did_you_mean(key, list(model.model_fields))}" for key in unknown]
    known = {key: value for key, value in given.values.items() if key not in unknown}
    return validate(Owner(label, model), Layer(known, sources), errors)


def _faults(layout: SkirmishMap, units: dict[str, Unit], shown: str) -> list[str]:
    """What does not fit together."""
    faults = []
    for side, groups in (("allies", layout.allies), ("enemies", layout.enemies)):
        for group in groups:
            if group.unit not in units:
                faults.append(f"{shown}: {side}: unknown unit {group.unit!r}{did_you_mean(group.unit, units)}")
            if not any(x0 <= group.at[0] < x1 and y0 <= group.at[1] < y1 for x0, y0, x1, y1 in layout.arena):
                faults.append(f"{shown}: {side}: {group.unit} at {list(group.at)} is outside of the arena")
    attackers = [group for group in layout.enemies if not group.guard]
    if attackers and len(layout.goal) not in (2, 4):
        faults.append(f"{shown}: goal: enemies that do not guard need [x, y] or [x, y, x, y] to attack")
    faults += [
        f"{shown}: units.{name}.flight: a volley must arrive before the next one leaves"
        for name in sorted({group.unit for group in (*layout.allies, *layout.enemies)} & set(units))
        if units[name].flight > 16 * units[name].period - 2
    ]
    types = {units[group.unit].type for group in (*layout.allies, *layout.enemies) if group.unit in units}
    if layout.type_bits and layout.type_bits < len(types):
        faults.append(f"{shown}: type_bits = {layout.type_bits} cannot tell {len(types)} types apart")
    return faults
