"""``python src/main.py report [FOLDER ...]``: tables and curves over the seeds of finished runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.arguments import Parser
from components.command_line import show
from components.config_layers import override_layer
from components.errors import UserError
from components.registry import did_you_mean
from reports.report import write_report
from reports.run_records import RunRecord, find_runs
from utils.logging import get_logger

FOLDER = "report"
_ABSENT = object()


def main(argv: Sequence[str]) -> None:
    """Writes the report and prints its Markdown table.

    Raises:
        UserError: wrong arguments, no run, or runs that may not stand in one table.
    """
    parser = Parser(
        prog="main.py report",
        description="Tables and learning curves over the seeds of finished runs, with bootstrap intervals.\n"
        "Seeds of different settings are refused; docs/statistics.md says what each number means.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", default=["results"], help="default: results")
    parser.add_argument("--metric", metavar="NAME", help="of the final evaluation; default: success, else return")
    parser.add_argument("--statistic", metavar="iqm|mean", default="iqm", help="default: iqm, the interquartile mean")
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="only runs configured so"
    )
    parser.add_argument("--baseline", metavar="NAME", help="the algorithm that the others are compared with")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"default: {FOLDER} in the first folder")
    parser.add_argument("--mixed", action="store_true", help="flag different settings instead of refusing them")
    parser.add_argument("--show-seeds", action="store_true", help="draw every seed's own curve too")
    arguments = parser.parse_args(argv)
    folders = [Path(folder) for folder in arguments.folders]
    runs = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    output = arguments.output or folders[0] / FOLDER
    table = write_report(
        matching(list(runs.values()), arguments.where),
        arguments.metric,
        output,
        statistic=arguments.statistic,
        baseline=arguments.baseline,
        mixed=arguments.mixed,
        show_seeds=arguments.show_seeds,
        command=shlex.join(["python", "src/main.py", "report", *argv]),
    )
    show(table.rstrip())
    get_logger().info("the report is in %s", output)


def matching(runs: Sequence[RunRecord], conditions: Sequence[str]) -> list[RunRecord]:
    """The runs whose configuration has all the given values.

    Args:
        runs: any.
        conditions: ``key=value`` texts, ``env_args.key=value`` for the environment; all must hold.

    Raises:
        UserError: a malformed condition, a key that no run has, or a value that no run has.
    """
    for text in conditions:
        [(key, value)] = _flat(override_layer(text).values).items()
        found = [_flat(run.config).get(key, _ABSENT) for run in runs]
        if all(one is _ABSENT for one in found):
            known = sorted({name for run in runs for name in _flat(run.config)})
            raise UserError(f"--where {text}: no run has the key {key!r}{did_you_mean(key, known)}")
        kept = [run for run, one in zip(runs, found, strict=True) if one == value]
        if not kept:
            values = ", ".join(sorted({str(one) for one in found if one is not _ABSENT}))
            raise UserError(f"--where {text}: no run has this value; the runs have {key} = {values}")
        runs = kept
    return list(runs)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
