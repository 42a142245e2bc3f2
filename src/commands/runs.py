"""``python src/main.py runs [FOLDER]``: the page of a results folder's runs."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser
from reports.run_records import find_runs
from reports.runs_page import PAGE, save_runs_page, status_counts


def main(argv: Sequence[str]) -> None:
    """Writes the page; prints its path and how many runs have which status.

    Raises:
        UserError: wrong arguments, no run in the folder, or a page that cannot be written.
    """
    parser = Parser(
        prog="runs",
        description="Writes one HTML page that lists, filters, compares and diffs the runs of a results folder.",
    )
    parser.add_argument("folder", nargs="?", default="results", type=Path, help="results folder (default: results)")
    parser.add_argument("--output", type=Path, help=f"where the page goes (default: FOLDER/{PAGE})")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    arguments = parser.parse_args(argv)
    records = find_runs(arguments.folder)
    path = save_runs_page(records, arguments.folder, arguments.output or arguments.folder / PAGE)
    print(path)
    print(status_counts(records))
    if arguments.open:
        webbrowser.open(path.resolve().as_uri())
