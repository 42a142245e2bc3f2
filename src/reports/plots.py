"""Learning curves over seeds: one panel per environment, as PNG and SVG."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import temporary_sibling
from reports.cells import Row
from reports.scores import NAMES, LearningCurve, Results
from reports.statistics import CONFIDENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which color-blind readers can tell apart, without the yellow that white paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Together with the colors no pair repeats before the 28th row; also for print without color.
LINES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)))
# More lines than that nobody can tell apart; a search has dozens.
MOST_ROWS = 14
# One panel fits a column of a paper, three its page; heights without title and legend.
PANEL_INCHES = {1: 3.5, 2: 2.75, 3: 2.3}
PANEL_HEIGHT = 1.75
LINE_INCHES, LETTER_INCHES, HANDLE_INCHES = 0.16, 0.06, 0.5  # of the text in the figure
TICK_INCHES = 0.5  # left of the axes
MARGIN = 0.02
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    # The same numbers give the same file.
    "svg.hashsalt": "lpmarl",
}


def draw_curves(results: Results, show_seeds: bool = False) -> Figure:
    """The learning curves with their intervals.

    Args:
        results: panels are its columns with a curve, lines its rows; of many those that end highest.
        show_seeds: also every seed's own curve, thin.
    """
    # Matplotlib takes half a second to import: only who draws waits for it.
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = [column for column in results.columns if any(own == column for _, own in results.curves)]
    down = max(1, -(-len(columns) // max(PANEL_INCHES)))
    across = max(1, -(-len(columns) // down))
    width = PANEL_INCHES[across]
    titles = {column: _wrapped(column.title, width - TICK_INCHES) for column in columns}
    curved = [row for row in results.rows if any(own == row for own, _ in results.curves)]
    rows = _highest(results, curved)
    left_out = f"the {len(rows)} highest of {len(curved)}" if len(rows) < len(curved) else ""
    labels = {row: _wrapped(_label(results, row), across * width - HANDLE_INCHES) for row in rows}
    longest = max((len(line) for label in labels.values() for line in label.splitlines()), default=0)
    entries = max(1, int(across * width / (HANDLE_INCHES + LETTER_INCHES * longest)))
    title_lines = 1 + max((title.count("\n") for title in titles.values()), default=0)
    label_lines = 1 + max((label.count("\n") for label in labels.values()), default=0)
    legend_lines = -(-len(labels) // entries) * label_lines + bool(left_out)
    height = down * (PANEL_HEIGHT + LINE_INCHES * title_lines) + LINE_INCHES * legend_lines
    looks = _looks(rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(across * width, height), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel, column in zip(panels, columns, strict=False):
            curves = {row: curve for (row, own), curve in results.curves.items() if own == column and row in rows}
            _panel(panel, curves, looks, show_seeds)
            panel.set_title(titles[column])
        for panel in panels[len(columns) :]:
            panel.set_axis_off()
        for panel in panels[::across]:  # the leftmost
            panel.set_ylabel(f"test {results.metric}\n({NAMES[results.statistic]}, {100 * CONFIDENCE:.0f} % interval)")
        handles = [Line2D([], [], label=label, **looks[row]) for row, label in labels.items()]
        if handles:
            columns_of_legend = min(entries, len(handles))
            figure.legend(handles=handles, loc="outside lower center", ncols=columns_of_legend, title=left_out or None)
    return figure


def save_figure(figure: Figure, path: Path, about: str = "") -> None:
    """Writes a figure as its suffix tells, whole or not at all; the same figure gives the same SVG.

    Args:
        figure: what is written.
        path: ends in .png or .svg.
        about: where it comes from, for the file's ``Description``.

    Raises:
        OSError: the disk refused.
    """
    import matplotlib as mpl

    temporary = temporary_sibling(path)
    kind = path.suffix[1:]
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    metadata |= {"Description": about} if about else {}
    try:
        with mpl.rc_context(STYLE):
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _looks(rows: Sequence[Row]) -> dict[Row, dict[str, Any]]:
    return {
        row: {"color": color, "linestyle": line}
        for row, color, line in zip(rows, cycle(COLORS), cycle(LINES), strict=False)
    }


def _wrapped(text: str, width: float) -> str:
    return textwrap.fill(text, int(width / LETTER_INCHES), break_long_words=False)


def _highest(results: Results, rows: Sequence[Row]) -> list[Row]:
    """The rows that are drawn, in their order: all, or those whose highest curve ends highest."""
    ends = {
        row: max(float(c.estimate.value[-1]) for (own, _), c in results.curves.items() if own == row) for row in rows
    }
    kept = sorted(rows, key=lambda row: -ends[row])[:MOST_ROWS]
    return [row for row in rows if row in kept]


def _label(results: Results, row: Row) -> str:
    """What the legend says of a row; the seeds, so that few are seen."""
    counts = sorted({len(curve.seeds) for (own, _), curve in results.curves.items() if own == row})
    return f"{row.title} ({_seeds(counts)})"


def _seeds(counts: Sequence[int]) -> str:
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{shown} seed" + ("" if counts[-1] == 1 else "s")


def _panel(
    panel: Axes,
    curves: Mapping[Row, LearningCurve],
    looks: Mapping[Row, dict[str, Any]],
    show_seeds: bool,
) -> None:
    from matplotlib.ticker import EngFormatter

    for row, curve in curves.items():
        estimate, color = curve.estimate, looks[row]["color"]
        panel.fill_between(curve.env_steps, estimate.low, estimate.high, color=color, alpha=0.18, linewidth=0)
        panel.plot(curve.env_steps, estimate.value, **looks[row])
        for seed in curve.seeds if show_seeds else ():
            panel.plot(*zip(*seed, strict=True), color=color, linewidth=0.4, alpha=0.6)
    panel.set_xlabel("environment steps")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if all((curve.estimate.low >= 0).all() and (curve.estimate.high <= 1).all() for curve in curves.values()):
        panel.set_ylim(-MARGIN, 1 + MARGIN)
