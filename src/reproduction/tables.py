"""A table as Markdown (means in a grid, then every seed) and as CSV (one line for each seed)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from reproduction.output import Output
from reproduction.paper import NOTHING, UNKNOWN, PaperNumbers
from reproduction.specs import Metric, Source, Table
from reproduction.study import Study

MISSING = "missing"
NO_VALUE = "none"


def write_table(table: Table, study: Study, paper: PaperNumbers, output: Output) -> None:
    """Writes ``<name>.md`` and ``<name>.csv``."""
    lines: list[str] = [*([table.note, ""] if table.note else [])]
    rows = []
    for metric in table.metrics:
        lines += [f"## {metric.title}", "", *_grid(table, metric, study, paper), ""]
        lines += ["Every seed:", "", *_details(table, metric, study, paper), ""]
        for (row, column), source in table.cells.items():
            about = {"table": table.name, "metric": metric.name, "row": row, "column": column}
            about |= {"overrides": " ".join(source.overrides)}
            known = paper.find(table.name, metric.name, row, column) or ""
            beside = {"paper": known} if _in_paper(table, metric) else {}
            rows += [
                about | {"seed": seed, "value": value} | beside
                for seed, value in _values(table, metric, study, row, column).items()
            ]
    lines.append(
        f"Means over seeds; in brackets how many of the seeds have a value, where some are {MISSING} or have none (an "
        f"episode without success has no steps to success). {NO_VALUE}: no episode has one."
    )
    if table.in_paper:
        lines.append(f"In parentheses the paper's number. {UNKNOWN}")
    output.markdown(table.name, table.title, lines)
    output.csv(table.name, rows)


def _in_paper(table: Table, metric: Metric) -> bool:
    return table.in_paper and metric.in_paper


def _absent(source: Source, study: Study) -> str:
    return NO_VALUE if study.is_complete(source) else MISSING


def _values(table: Table, metric: Metric, study: Study, row: str, column: str) -> dict[int, float]:
    return study.values(table.cells[row, column], metric)


def _grid(table: Table, metric: Metric, study: Study, paper: PaperNumbers) -> list[str]:
    def cell(row: str, column: str) -> str:
        source = table.cells.get((row, column))
        if source is None:
            return ""
        values, wanted = study.values(source, metric), len(study.wanted(source.runs))
        shown = f"{fmean(values.values()):.{metric.decimals}f}" if values else _absent(source, study)
        part = f" [{len(values)} of {wanted}]" if 0 < len(values) < wanted else ""
        beside = f" ({paper.shown(table.name, metric.name, row, column)})" if _in_paper(table, metric) else ""
        return f"{shown}{part}{beside}"

    if table.settings_down:
        body = [[title, *(cell(row, column) for row in table.rows)] for column, title in table.columns.items()]
        return markdown_table(["setting", *table.rows.values()], body)
    body = [[title, *(cell(row, column) for column in table.columns)] for row, title in table.rows.items()]
    return markdown_table(["method", *table.columns.values()], body)


def _details(table: Table, metric: Metric, study: Study, paper: PaperNumbers) -> list[str]:
    body = []
    for row, column in table.cells:
        values = _values(table, metric, study, row, column)
        several = len(values) > 1
        each = ", ".join(f"{seed}: {value:.{metric.decimals}f}" for seed, value in values.items())
        line = [
            table.columns[column],
            table.rows[row],
            f"{fmean(values.values()):.{metric.decimals}f}" if values else _absent(table.cells[row, column], study),
            f"{stdev(values.values()):.{metric.decimals}f}" if several else NOTHING,
            each or _absent(table.cells[row, column], study),
        ]
        body.append([*line, *([paper.shown(table.name, metric.name, row, column)] if _in_paper(table, metric) else [])])
    return markdown_table(
        ["setting", "method", "mean", "std", "seed: value", *(["paper"] if _in_paper(table, metric) else [])], body
    )


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *body)]
