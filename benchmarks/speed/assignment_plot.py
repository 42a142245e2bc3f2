"""Plots of what `assignment.py` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.plots import COLORS, save_figure

LABELS = {
    "kernel": "kernel",
    "torch": "torch",
    "glop": "glop",
    "lsa": "lsa",
    "lsa_direct": "SciPy, called directly",
    "glop_rebuilt": "GLOP, rebuilt plainly",
}


def plot(document: dict[str, Any], path: Path) -> None:
    """Rates against the size of the problem, against N, and against M, all logarithmic."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    sizes, agents, tasks = figure.subplots(1, 3, sharey=True)
    for kind, line in (("tight", "-"), ("slack", ":")):
        rows = [row for row in document["sizes"] if row["capacities"] == kind]
        _lines(sizes, rows, [row["n_agents"] * row["n_tasks"] for row in rows], line)
    names = [f"({row['n_agents']},{row['n_tasks']})" for row in rows]
    _ticks(sizes, [row["n_agents"] * row["n_tasks"] for row in rows], names)
    for label in sizes.get_xticklabels():
        label.set(rotation=60, ha="right", fontsize=8)
    sizes.set(title="sizes (N,M) by N M; dotted: slack capacities", ylabel=document["unit"])
    rows = document["growth_with_agents"]
    _lines(agents, rows, [row["n_agents"] for row in rows], "-")
    _ticks(agents, [row["n_agents"] for row in rows])
    agents.set(title=f"growth with agents, M = {rows[0]['n_tasks']}", xlabel="N")
    rows = document["growth_with_tasks"]
    _lines(tasks, rows, [row["n_tasks"] for row in rows], "-")
    _ticks(tasks, [row["n_tasks"] for row in rows])
    tasks.set(title=f"growth with tasks, N = {rows[0]['n_agents']}", xlabel="M")
    handles = [line for line in sizes.get_lines() if line.get_linestyle() == "-"]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LABELS), frameon=False)
    save_figure(figure, path)


def _lines(panel: Axes, rows: list[dict[str, Any]], x: list[int], line: str) -> None:
    for (name, label), color in zip(LABELS.items(), COLORS, strict=False):
        points = [
            (at, row["methods"][name]["median"]) for at, row in zip(x, rows, strict=True) if name in row["methods"]
        ]
        panel.plot(*zip(*points, strict=True), line, color=color, label=label, marker=".")
    panel.set(xscale="log", yscale="log")
    panel.grid(alpha=0.3)


def _ticks(panel: Axes, at: list[int], names: list[str] | None = None) -> None:
    panel.set_xticks(at, names or [str(x) for x in at])
    panel.minorticks_off()
