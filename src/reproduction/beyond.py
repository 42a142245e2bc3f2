"""Where the nearest task is not the best: success of learned and given assignments, and what the scores learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reports.plots import COLORS, STYLE
from reproduction.output import Output
from reproduction.points import Found
from reproduction.specs import Metric, Source, Table
from reproduction.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS, DOTS = 12, 700
LEAST_IN_BIN = 10
_BACK, _DOT = "#dddddd", 6.0
Array = NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """Two ways of one method: re-decided while the episode goes on, and decided once."""

    title: str
    often: str
    once: str


@dataclass(frozen=True)
class Grouping:
    """What sets pairs of agent and task apart in the figure of the scores.

    Attributes:
        column: of ``agent_feats``.
        task_column: of ``task_feats``: the pairs in which both agree are the second group; ``None``: the agents whose
            value is above the middle of the values are.
        names: of the two groups.
    """

    column: int
    task_column: int | None
    names: tuple[str, str]


def write_bars(name: str, table: Table, pairs: Sequence[Pair], metric: Metric, study: Study, output: Output) -> None:
    """Bars of the table's metric with every seed as a dot, one panel for each setting."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    across = 2
    down = -(-len(table.columns) // across)
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.0, down * (0.2 * len(pairs) + 0.55) + 0.3), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes, (column, title) in zip(panels, table.columns.items(), strict=False):
            there = [pair for pair in pairs if (pair.often, column) in table.cells]
            for place, pair in enumerate(there):
                for row, shift, color in ((pair.often, -0.2, COLORS[0]), (pair.once, 0.2, COLORS[4])):
                    values = list(study.values(table.cells[row, column], metric).values())
                    if values:
                        axes.barh(place + shift, np.mean(values), height=0.38, color=color, alpha=0.55, linewidth=0)
                        axes.scatter(values, [place + shift] * len(values), s=_DOT, color=color, zorder=3)
            axes.set_yticks(range(len(there)), [pair.title for pair in there])
            axes.set(ylim=(len(there) - 0.4, -0.6), xlim=(-2, 102), title=title)
            axes.set_axisbelow(True)
        for axes in panels[-across:]:
            axes.set_xlabel(metric.title)
        handles = [
            Patch(color=COLORS[0], alpha=0.55, label="re-decided every 10 steps"),
            Patch(color=COLORS[4], alpha=0.55, label="decided once"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    output.figure(name, figure)


def write_scores(
    name: str,
    title: str,
    cost: str,
    panels: Mapping[str, tuple[Source, Grouping]],
    study: Study,
    output: Output,
) -> None:
    """Learned scores against a cost that the environment knows, at the start of test episodes.

    Args:
        name: of the files.
        title: one line.
        cost: its name.
        panels: title -> decisions that were measured, and what sets pairs apart.
        study: has the measurements.
        output: where the files go.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = []
    across = 2
    down = -(-len(panels) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, down * 1.7 + 0.1), layout="constrained")
        drawn = figure.subplots(down, across, squeeze=False)
        for axes, (shown, (source, grouping)) in zip(drawn.flatten(), panels.items(), strict=False):
            groups = _pairs(study.measured(source).values(), cost, grouping)
            for group, color in zip(grouping.names, (COLORS[1], COLORS[0]), strict=True):
                costs, scores = groups[group]
                rows += _draw_group(axes, shown, group, color, costs, scores)
            axes.set(title=shown, ylim=(-0.02, 1.02))
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", handlelength=1.2)
            if not any(len(found[0]) for found in groups.values()):
                axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#888888")
        _label(figure, drawn, cost)
    output.figure(name, figure)
    output.csv(name, rows)
    output.markdown(
        name,
        title,
        [
            f"![{title}]({name}.png)",
            "",
            f"Dots: pairs of agent and task at the start of test episodes, a sample of all seeds. Lines: mean score in "
            f"bins of equal count of {cost.replace('_', ' ')} (bins of at least {LEAST_IN_BIN} pairs).",
        ],
    )


def _label(figure: Figure, drawn: Any, cost: str) -> None:
    for axes in drawn[-1]:
        axes.set_xlabel(f"{cost.replace('_', ' ')}, steps")
    for axes in drawn[:, 0]:
        axes.set_ylabel("learned score $C$")


def _draw_group(axes: Axes, panel: str, group: str, color: str, costs: Array, scores: Array) -> list[dict[str, Any]]:
    if len(costs) == 0:
        return []
    sample = np.random.default_rng(0).permutation(len(costs))[:DOTS]
    axes.scatter(costs[sample], scores[sample], s=1.5, color=color, alpha=0.25, linewidths=0, rasterized=True)
    edges = np.unique(np.quantile(costs, np.linspace(0, 1, BINS + 1)))
    number = np.clip(np.searchsorted(edges, costs, side="right") - 1, 0, max(len(edges) - 2, 0))
    inside = [number == index for index in range(max(len(edges) - 1, 1))]
    bins = [
        (costs[own].mean(), scores[own].mean(), scores[own].std(), int(own.sum()))
        for own in inside
        if own.sum() >= LEAST_IN_BIN
    ]
    if bins:
        at, height = np.array(bins)[:, :2].T
        axes.plot(at, height, color=color, marker="o", markersize=2.5, label=group)
    names = ("cost", "score", "score_std", "pairs")
    return [{"setting": panel, "group": group} | dict(zip(names, own, strict=True)) for own in bins]


def _pairs(measured: Iterable[Found], cost: str, grouping: Grouping) -> dict[str, tuple[Array, Array]]:
    """Group -> costs and scores of its pairs, of all seeds together."""
    collected: dict[str, list[tuple[Array, Array]]] = {name: [] for name in grouping.names}
    for found in measured:
        if cost not in found["costs"]:
            continue
        costs, scores = np.array(found["costs"][cost], dtype=float), np.array(found["scores"], dtype=float)
        own = np.array(found["agent_feats"], dtype=float)[..., grouping.column]
        if grouping.task_column is None:
            second = np.broadcast_to((own > (own.min() + own.max()) / 2)[..., None], costs.shape)
        else:
            second = own[..., None] == np.array(found["task_feats"], dtype=float)[:, None, :, grouping.task_column]
        known = np.isfinite(costs) & np.isfinite(scores)
        for name, chosen in zip(grouping.names, (~second, second), strict=True):
            collected[name].append((costs[chosen & known], scores[chosen & known]))
    nothing = np.zeros(0)
    return {
        name: (np.concatenate([a for a, _ in parts] or [nothing]), np.concatenate([b for _, b in parts] or [nothing]))
        for name, parts in collected.items()
    }
