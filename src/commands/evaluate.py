"""``python src/main.py evaluate PATH ...``: greedy episodes from checkpoints, in any setting, into one table."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from commands.arguments import Parser, split_overrides
from commands.trained import Trained, load_trained
from components.command_line import show
from components.errors import UserError
from components.files import write_text_atomic
from components.registry import did_you_mean
from runners.evaluation import greedy_episodes
from utils.logging import get_logger

Row = dict[str, Any]

_EXAMPLES = """examples:
  python src/main.py evaluate results/sacred/constrained_navigation/lpmarl/1 --episodes 2000
  python src/main.py evaluate RUN --vary high_policy=lp,lp_distance,random_feasible with redecide=start
  python src/main.py evaluate RUN1 RUN2 --vary env_args.n_agents=5,10 --output sizes.csv with seed=7

Every checkpoint is played in every combination of the varied values, on the same seeded episodes. Means are over
episodes, with their standard error: how exactly this checkpoint is known, not how far seeds differ (see report)."""


def main(argv: Sequence[str]) -> None:
    """Prints the table as Markdown, and writes it where ``--output`` says."""
    about = "Plays greedy episodes from checkpoints and prints one table."
    parser = Parser(prog="main.py evaluate", description=about, epilog=_EXAMPLES)
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="a run's folder (newest checkpoint) or a checkpoint's"
    )
    parser.add_argument("--episodes", type=int, default=1000, help="episodes for each row (default 1000)")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="KEY=A,B", help="one row for each value; repeatable"
    )
    parser.add_argument("--metrics", help="columns, by comma; default: all")
    parser.add_argument("--output", type=Path, help=f"also write the table: {', '.join(_WRITERS)}")
    words, overrides = split_overrides(argv)
    given = parser.parse_args(words)
    if given.episodes < 1:
        raise UserError(f"--episodes {given.episodes}: at least 1")
    _require_writable(given.output)
    settings = list(itertools.product(*(_variants(text) for text in given.vary)))
    asked = [(path, setting) for path in given.paths for setting in settings]
    # A later row that cannot be played is told before the first is: hours may lie between.
    for path, setting in asked[1:]:
        _load(path, [*overrides, *setting], given.episodes).parts.close()
    rows = [evaluated(path, [*overrides, *setting], setting, given.episodes) for path, setting in asked]
    try:
        rows = _chosen(rows, given.metrics)
    finally:
        # A metric that is not there leaves them all.
        show(_markdown(rows))
    if given.output is not None:
        try:
            write_text_atomic(given.output, _WRITERS[given.output.suffix](rows))
        except OSError as error:
            raise UserError(f"--output {given.output} could not be written: {error.strerror or error}") from error
        get_logger().info("written to %s", given.output)


def _variants(text: str) -> list[str]:
    """``key=a,b`` -> ``["key=a", "key=b"]``; commas inside brackets belong to a value."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values:
        raise UserError(f"--vary {text!r}: expected KEY=VALUE,VALUE, such as high_policy=lp,lp_distance")
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [f"{key}={value.strip()}" for value in parts]


def evaluated(path: Path, overrides: Sequence[str], setting: Sequence[str], n_episodes: int) -> Row:
    """One row: a checkpoint's greedy episodes, each metric's mean and (``<metric>_se``) standard error.

    Args:
        path: a run's folder or a checkpoint's.
        overrides: all ``key=value`` texts.
        setting: those of them that become columns.
        n_episodes: how many are played.
    """
    trained = _load(path, overrides, n_episodes)
    try:
        found = greedy_episodes(trained.parts.test, trained.clock, n_episodes)
    finally:
        trained.parts.close()
    varied = dict(text.split("=", 1) for text in setting)
    about = _about(path, trained)
    others = {key: value for key, value in varied.items() if key not in about}
    return about | others | {"episodes": n_episodes} | _summaries(found)


def _load(path: Path, overrides: Sequence[str], n_episodes: int) -> Trained:
    return load_trained(path, [*overrides, f"final_nepisode={n_episodes}", "test_nepisode=0"])


def _about(path: Path, trained: Trained) -> Row:
    return {
        "checkpoint": str(path),
        "algorithm": trained.meta["algorithm"],
        "env_steps": trained.clock.env_steps,
        "trained_seed": trained.meta["seed"],
        "seed": trained.config.run.seed,
    }


def _summaries(found: Mapping[str, Any]) -> Row:
    """Mean and standard error of each metric, over the episodes that it applies to."""
    row: Row = {}
    for name, values in found.items():
        known = values[~np.isnan(values)]
        if len(known):
            row[name] = float(known.mean())
            row[f"{name}_se"] = float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else None
    return row


def _chosen(rows: list[Row], metrics: str | None) -> list[Row]:
    if metrics is None:
        return rows
    wanted = metrics.split(",")
    there = {key.removesuffix("_se"): 0 for row in rows for key in row if f"{key.removesuffix('_se')}_se" in row}
    for name in wanted:
        if name not in there:
            raise UserError(f"--metrics: unknown metric {name!r}{did_you_mean(name, there)}")
    dropped = set(there) - set(wanted)
    return [{key: value for key, value in row.items() if key.removesuffix("_se") not in dropped} for row in rows]


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _markdown(rows: Sequence[Row]) -> str:
    names = [name for name in _columns(rows) if not name.endswith("_se")]
    lines = [names, ["---"] * len(names), *([_cell(row, name) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cell(row: Row, name: str) -> str:
    value, error = row.get(name), row.get(f"{name}_se")
    shown = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{shown} ± {error:.2g}" if error is not None else shown


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(list(rows), indent=2) + "\n"


_WRITERS: dict[str, Callable[[Sequence[Row]], str]] = {".csv": _csv, ".json": _json, ".md": _markdown}


def _require_writable(output: Path | None) -> None:
    if output is None:
        return
    if output.suffix not in _WRITERS:
        raise UserError(f"--output {output}: the name must end in {', '.join(_WRITERS)}")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")
