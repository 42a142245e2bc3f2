"""Results as the tables that a paper shows: Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.cells import Cell, Column, Note, Row
from reports.scores import ALL, NAMES, Results, Scores
from reports.statistics import CONFIDENCE, REPETITIONS, Estimate

NOTHING = "–"
_LETTERS = "abcdefghijklmnop"  # those that exist as superscripts
_SUPERSCRIPTS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ"
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
}

Anchor = Row | Column | Cell


@dataclass(frozen=True)
class Grid:
    """One table: a text for every row and column."""

    caption: str
    texts: Mapping[Cell, str]


def markdown(results: Results) -> str:
    """All tables and notes as Markdown."""
    marks = _marks(results.notes)

    def mark(anchor: Anchor) -> str:
        return _superscript(marks.get(anchor, ()))

    lines = [f"# {results.metric}, final evaluation"]
    for grid in grids(results):
        header = ["algorithm", *(_one_line(column.title) + mark(column) for column in results.columns)]
        body = [
            [_one_line(row.title) + mark(row), *(_cell(grid, row, column, mark) for column in results.columns)]
            for row in _shown(grid, results.rows)
        ]
        rows = [header, ["---"] * len(header), *body]
        lines += ["", f"## {grid.caption}", "", *(f"| {' | '.join(row)} |" for row in rows)]
    legend = [f"- {_superscript([letter])} {note.text}" for letter, note in _lettered(results.notes)]
    general = [f"- {note.text}" for note in results.notes if not note.at]
    return "\n".join([*lines, "", *map(_one_line, [*legend, *general]), f"- {_method()}", ""])


def latex(results: Results) -> str:
    """All tables and notes as LaTeX for the package booktabs, one ``table`` each."""
    marks = _marks(results.notes)

    def mark(anchor: Anchor) -> str:
        letters = ",".join(marks.get(anchor, ()))
        return rf"\textsuperscript{{{letters}}}" if letters else ""

    legend = [rf"\textsuperscript{{{letter}}} {escape(note.text)}." for letter, note in _lettered(results.notes)]
    general = [escape(note.text) + "." for note in results.notes if not note.at]
    notes = " \\\\\n".join([*legend, *general, escape(_method())])
    tables = [r"% \usepackage{booktabs}"]
    for number, grid in enumerate(grids(results)):
        header = ["Algorithm", *(_stacked(column.title) + mark(column) for column in results.columns)]
        body = [
            [escape(row.title) + mark(row), *(_cell(grid, row, column, mark, escape) for column in results.columns)]
            for row in _shown(grid, results.rows)
        ]
        tables += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(f'{results.metric}: {grid.caption}')}}}",
            rf"\begin{{tabular}}{{l{'c' * len(results.columns)}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in body),
            r"\bottomrule",
            r"\end{tabular}",
            # Once: the notes are the same for all.
            *([r"\par\smallskip", rf"{{\footnotesize\raggedright {notes}\par}}"] if number == 0 else []),
            r"\end{table}",
        ]
    return "\n".join(tables) + "\n"


def grids(results: Results) -> list[Grid]:
    """What the tables show: the statistic with its interval, mean and deviation, improvement over the baseline."""
    digits = {column: _decimals(results, column) for column in results.columns}
    percent = f"[{100 * CONFIDENCE:.0f} % interval]"
    main, spread = {}, {}
    for cell, scores in results.scores.items():
        estimate = scores.estimates[results.statistic]
        main[cell] = f"{_interval(estimate, digits[cell[1]])} ({_seeds(results, cell, scores)})"
        spread[cell] = _mean_and_std(scores, digits[cell[1]])
    found = [
        Grid(f"{NAMES[results.statistic]} {percent} (seeds)", main),
        Grid("mean ± standard deviation over seeds", spread),
    ]
    if results.baseline is not None:
        caption = (
            f"probability that a seed has a larger {results.metric} than one of {results.baseline.title} {percent}"
        )
        found.append(Grid(caption, {cell: _interval(value, 2) for cell, value in results.improvement.items()}))
    return found


def escape(text: str) -> str:
    """Text as LaTeX prints it literally."""
    return "".join(_LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))


def _cell(grid: Grid, row: Row, column: Column, mark: Any, shown: Any = str) -> str:
    text = grid.texts.get((row, column))
    return shown(NOTHING) if text is None else shown(text) + mark((row, column))


def _shown(grid: Grid, rows: Iterable[Row]) -> list[Row]:
    there = {row for row, _ in grid.texts}
    return [row for row in rows if row in there]


def _lettered(notes: Iterable[Note]) -> list[tuple[str, Note]]:
    placed = [note for note in notes if note.at]
    # After the last letter they are doubled.
    count = len(_LETTERS)
    return [(_LETTERS[place % count] * (1 + place // count), note) for place, note in enumerate(placed)]


def _marks(notes: Iterable[Note]) -> dict[Anchor, list[str]]:
    found: dict[Anchor, list[str]] = {}
    for letter, note in _lettered(notes):
        for anchor in note.at:
            found.setdefault(anchor, []).append(letter)
    return found


def _superscript(letters: Sequence[str]) -> str:
    return "˒".join(letters).translate(str.maketrans(_LETTERS, _SUPERSCRIPTS))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _stacked(title: str) -> str:
    lines = r" \\ ".join(escape(word) for word in title.split(" "))
    return rf"\shortstack{{{lines}}}"


def _method() -> str:
    return (
        "One value per seed: the mean of the greedy episodes after training. Intervals: percentile bootstrap over "
        f"seeds within each environment, {REPETITIONS} resamples"
    )


def _decimals(results: Results, column: Column) -> int:
    largest = max(
        (abs(value) for (_, own), scores in results.scores.items() if own == column for value in scores.values),
        default=0,
    )
    if not largest:
        return 3
    order = math.ceil(math.log10(largest))
    # Three decimals for a share, 12.34, 123.4, 1234; three significant digits of what is below 0.1.
    return max(0, 4 - max(order, 1)) if order >= 0 else min(9, 3 - order)


def _interval(estimate: Estimate, decimals: int) -> str:
    return f"{estimate.value:.{decimals}f} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"


def _seeds(results: Results, cell: Cell, scores: Scores) -> str:
    row, column = cell
    if column is not ALL:
        return str(len(scores.values))
    counts = sorted({len(runs) for (own, _), runs in results.runs.items() if own == row})
    return f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])


def _mean_and_std(scores: Scores, decimals: int) -> str:
    mean = f"{scores.estimates['mean'].value:.{decimals}f}"
    return mean if math.isnan(scores.std) else f"{mean} ± {scores.std:.{decimals}f}"
