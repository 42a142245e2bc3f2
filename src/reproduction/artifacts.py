"""What a table or figure is: what it is made of, and what draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from reproduction.curves import METHOD, write_curves
from reproduction.output import Output
from reproduction.paper import PaperNumbers
from reproduction.specs import Curves, Runs, Source, Table
from reproduction.study import Study
from reproduction.tables import write_table

Render = Callable[[Study, PaperNumbers, Output], None]


@dataclass(frozen=True)
class Artifact:
    """A table or figure.

    Attributes:
        name: on the command line.
        title: one line.
        sources: all that it is made of.
        render: writes its files.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    render: Render


def trained(experiment_set: str, rows: list[str], columns: list[str]) -> dict[tuple[str, str], Source]:
    """Each row on each column, as the set trained it."""
    return {(row, column): Source(Runs(experiment_set, row, column)) for row in rows for column in columns}


def of_table(table: Table) -> Artifact:
    """A table and nothing else."""
    return Artifact(table.name, table.title, tuple(table.cells.values()), partial(write_table, table))


def of_curves(figure: Curves) -> Artifact:
    """Curves and nothing else."""

    def render(study: Study, paper: PaperNumbers, output: Output) -> None:
        write_curves(figure, study, paper, output)
        output.markdown(figure.name, figure.title, [f"![{figure.title}]({figure.name}.png)", "", METHOD])

    sources = dict.fromkeys(Source(line.runs) for panel in figure.panels for line in panel.lines)
    return Artifact(figure.name, figure.title, tuple(sources), render)
