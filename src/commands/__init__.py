"""The commands beside a plain run: ``python src/main.py resume FOLDER`` and its siblings.

A command is a module of this package with ``main(argv)``, imported when it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

COMMANDS = {
    "resume": "continue an interrupted or dead run, exactly",
    "evaluate": "play greedy episodes from checkpoints, with other seeds, sizes or policies, into one table",
    "replay": "write the replay page (or a video) of a checkpoint",
    "experiments": "run what is missing of an experiment set, then its table, curves and pages",
    "reproduce": "run, measure and render the paper's tables and figures, beside its numbers",
    "report": "tables and curves over the seeds of finished runs",
    "runs": "write the page that lists, compares and diffs the runs of a results folder",
}


def run_command(name: str, argv: Sequence[str]) -> None:
    """Runs a command with the arguments after its name."""
    importlib.import_module(f"commands.{name}").main(argv)
