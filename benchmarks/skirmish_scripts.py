"""Scripted assignments on scripted fighters: how strong each level of the skirmish simulator is.

    python benchmarks/skirmish_scripts.py FOLDER [--episodes 1000] [--map 3m]

Writes ``skirmish_scripts.json`` and ``.md``: the win rate of every script at every enemy cooldown or level, beside what
was seen before (benchmarks/seen/skirmish_scripts.yaml). Fighters stand until the first enemy is near, then attack
theirs when they reach it and else walk to it; those that flee run from zealots while their weapon is not ready, or for
as long as they are hunted.

Shape legend: B battles, N agents, M enemies, A actions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.speed.throughput import machine  # noqa: E402

from components.files import write_json_atomic  # noqa: E402
from components.yaml_loader import load_yaml  # noqa: E402
from envs.base import TASK_FIELDS  # noqa: E402
from envs.combat_costs import COSTS  # noqa: E402
from envs.skirmish import SIMULATOR_VERSION, Skirmish, SkirmishOptions  # noqa: E402
from envs.skirmish_layout import SIGHT  # noqa: E402
from envs.skirmish_world import EAST, FIRST_ATTACK, NORTH, SOUTH, STOP, WEST  # noqa: E402
from modules.assignment import make_problem, solve  # noqa: E402
from modules.assignment.policies import random_feasible  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

Array = NDArray[Any]
TABLES = ROOT / "benchmarks/seen/skirmish_scripts.yaml"
# Fighters start when an enemy is this near, in map units; those that flee run from enemies nearer than the second.
CONTACT, DANGER = 6.3, 4.0
WAYS = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
FIELDS = ("avail_actions", *TASK_FIELDS, *COSTS)


class Script(NamedTuple):
    """How agents get their enemies.

    Attributes:
        cost: a key of ``COSTS``, ``"distance"``, or ``None``: random.
        capacity: the environment's option.
        each_step: decide at every step; else at contact and when somebody died.
    """

    cost: str | None
    capacity: str
    each_step: bool


class Fight(NamedTuple):
    """What is fought.

    Attributes:
        map: its name.
        cooldown: factor on the weapons of enemies at full strength; ``None``: they are as ``difficulty`` says.
        fighters: ``stand``, ``flee_from_all``, ``flee_from_hunter`` (only from those that are after them) or
            ``hunted_run`` (from those, near or not, and without a shot).
        go_in: attack from the start, since the enemies do not come.
        limit: steps, or ``None`` for the map's.
        difficulty: the map's level.
    """

    map: str
    cooldown: float | None
    fighters: str = "stand"
    go_in: bool = False
    limit: int | None = None
    difficulty: str = "full"


def win_rate(fight: Fight, script: Script, episodes: int, seed: int = 0) -> float:
    """Percent of battles that are won."""
    options = SkirmishOptions.model_validate(
        {
            "map_name": fight.map,
            "difficulty": fight.difficulty,
            "enemy_cooldown": fight.cooldown,
            "capacity": script.capacity,
            "fixed_capacity": 1,
            "episode_limit": fight.limit,
        }
    )
    env = Skirmish(options, [seed * 1_000_000 + number for number in range(episodes)], FIELDS)
    env.reset()
    rng = np.random.default_rng(seed)
    active, won = np.ones(episodes, dtype=np.bool_), np.zeros(episodes)
    assign = np.zeros((episodes, env.info.n_agents), dtype=np.int64)
    engaged, alive = np.full(episodes, fight.go_in), np.zeros((episodes, 0), dtype=np.bool_)
    while active.any():
        seen = env.observation
        now = np.concatenate([seen["agent_alive"], seen["task_alive"]], 1)
        contact = engaged | (_distances(seen).min((1, 2)) <= CONTACT)
        died = (now != alive).any(1) if alive.size else contact
        due = active & contact & (script.each_step | died | (contact & ~engaged))
        engaged, alive = contact, now
        if due.any():
            assign[due] = _assign({name: field[due] for name, field in seen.items()}, script, rng)
        actions = _act(seen, assign, engaged, _who_flees(fight.fighters, seen, env))
        result = env.step(actions, active)
        done = active & (result.terminated | result.truncated)
        won[done] = env.episode_metrics()["battle_won"][done]
        active &= ~done
    return 100.0 * float(won.mean())


def _places(seen: Mapping[str, Array]) -> tuple[Array, Array]:
    return SIGHT * seen["agent_feats"][..., :2], SIGHT * seen["task_feats"][..., :2]


def _distances(seen: Mapping[str, Array]) -> Array:
    """[B, N, M]; infinite where one of the two is dead."""
    agents, enemies = _places(seen)
    distance = np.sqrt(np.square(agents[:, :, None] - enemies[:, None]).sum(-1))
    pairs = seen["agent_alive"][:, :, None] & seen["task_alive"][:, None]
    return np.where(pairs, distance, np.inf)


def _assign(seen: Mapping[str, Array], script: Script, rng: np.random.Generator) -> Array:
    """[B, N] everybody's enemy."""
    places = seen["capacity"], seen["agent_alive"], seen["task_alive"]
    if script.cost is None:
        return np.maximum(random_feasible(rng, *places, "auto"), 0)
    cost = _distances(seen) if script.cost == "distance" else seen[script.cost]
    cost = np.where(np.isfinite(cost), cost, 0.0).astype(np.float64)
    return np.maximum(solve(make_problem(-cost, *places), "auto").index, 0)


def _act(seen: Mapping[str, Array], assign: Array, engaged: Array, flees: Array) -> Array:
    """[B, N] actions."""
    avail, (agents, enemies) = seen["avail_actions"], _places(seen)
    offset = np.take_along_axis(enemies, assign[..., None], 1) - agents
    east, north = offset[..., 0] > 0, offset[..., 1] > 0
    sideways = np.abs(offset[..., 0]) > np.abs(offset[..., 1])
    walk = np.where(sideways, np.where(east, EAST, WEST), np.where(north, NORTH, SOUTH))
    attack = FIRST_ATTACK + assign
    reaches = np.take_along_axis(avail, attack[..., None], -1)[..., 0] > 0
    # Whose enemy died in this step stands until the next decision.
    lives = np.take_along_axis(seen["task_alive"], assign, 1)
    actions = np.where(reaches, attack, np.where(lives, walk, STOP))
    if flees.any():
        actions = np.where(flees, _escape(seen), actions)
    actions = np.where(engaged[:, None], actions, STOP)
    possible = np.take_along_axis(avail, actions[..., None], -1)[..., 0] > 0
    return np.where(possible, actions, np.where(seen["agent_alive"], STOP, 0))


def _who_flees(fighters: str, seen: Mapping[str, Array], env: Skirmish) -> Array:
    """[B, N] who runs instead of what its enemy asks for."""
    distance = _distances(seen)
    if fighters == "stand":
        return np.zeros(distance.shape[:2], dtype=np.bool_)
    after = env.targets()[:, None] == np.arange(distance.shape[1])[:, None]
    if fighters == "hunted_run":
        return (after & np.isfinite(distance)).any(-1)
    if fighters == "flee_from_hunter":
        distance = np.where(after, distance, np.inf)
    return (distance.min(-1) < DANGER) & (seen["agent_feats"][..., 4] > 0)


def _escape(seen: Mapping[str, Array]) -> Array:
    """[B, N] the move after which the enemies' nearness, the sum of 1 / distance^2, is least."""
    agents, enemies = _places(seen)
    after = np.clip(agents[:, :, None] + 1.5 * WAYS, -15.0, 15.0)
    square = np.square(after[:, :, :, None] - enemies[:, None, None]).sum(-1)
    nearness = np.where(seen["task_alive"][:, None, None], 1.0 / np.maximum(square, 0.1), 0.0).sum(-1)
    free = seen["avail_actions"][..., NORTH:FIRST_ATTACK] > 0
    return NORTH + np.where(free, nearness, np.inf).argmin(-1)


def main(argv: Sequence[str]) -> int:
    """Plays all tables of the file and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--episodes", type=int, default=1000, help="of each number (default 1000)")
    parser.add_argument("--map", help="only this one")
    given = parser.parse_args(argv)
    content = load_yaml(TABLES).values
    scripts = {name: read_script(values) for name, values in content["scripts"].items()}
    tables = [table for table in content["tables"] if given.map in (None, table["map"])]
    measured = [measure(table, scripts, given.episodes) for table in tables]
    document = {"episodes": given.episodes, "simulator": SIMULATOR_VERSION, "tables": measured}
    given.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(given.folder / "skirmish_scripts.json", {**document, "machine": machine(), **git_commit(ROOT)})
    text = "\n\n".join(markdown(table) for table in measured) + "\n"
    (given.folder / "skirmish_scripts.md").write_text(text)
    print(text)
    return 0


def read_script(values: dict[str, Any]) -> Script:
    """A script of the file."""
    return Script(values.get("cost"), values["capacity"], bool(values.get("each_step", False)))


def measure(table: dict[str, Any], scripts: dict[str, Script], episodes: int) -> dict[str, Any]:
    """A table of the file with ``won``: what was measured, in the places of ``seen``."""
    how = {key: table[key] for key in ("fighters", "go_in", "limit") if key in table}
    fights = [Fight(table["map"], cooldown, **how) for cooldown in table.get("cooldown", ())]
    fights += [Fight(table["map"], None, difficulty=level, **how) for level in table.get("difficulty", ())]
    won = {name: [win_rate(fight, scripts[name], episodes) for fight in fights] for name in table["seen"]}
    return {**table, "won": won}


def markdown(table: dict[str, Any]) -> str:
    """One table: ours, and in parentheses what was seen before."""
    title = ", ".join([table["map"], *([table["fighters"]] if "fighters" in table else [])])
    columns = [*(f"c {cooldown:g}" for cooldown in table.get("cooldown", ())), *table.get("difficulty", ())]
    head = [f"{title}: % won", *columns]
    lines = [head, ["---"] * len(head)]
    for name, rates in table["won"].items():
        pairs = zip(rates, table["seen"][name], strict=True)
        lines.append([name, *(f"{rate:.0f} ({'–' if seen is None else seen})" for rate, seen in pairs)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
