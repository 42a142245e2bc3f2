"""Curves over training: mean over seeds with its interval, in panels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reports.plots import COLORS, LINES, MARGIN, PANEL_HEIGHT, PANEL_INCHES, STYLE
from reports.scores import LearningCurve
from reports.statistics import CONFIDENCE, CURVE_REPETITIONS, bootstrap, mean, on_grid
from reproduction.output import Output
from reproduction.paper import PaperNumbers
from reproduction.specs import Curves, Line, Panel
from reproduction.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Width of a legend's entry: its line, and each letter.
MARK_INCHES, LETTER_INCHES = 0.55, 0.062
METHOD = f"Mean over seeds; the band is its {100 * CONFIDENCE:.0f} % bootstrap interval over seeds."


def write_curves(figure: Curves, study: Study, paper: PaperNumbers, output: Output) -> None:
    """Writes the figure, and the points of its curves as CSV."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    across, down = figure.across, -(-len(figure.panels) // figure.across)
    rows: list[dict[str, Any]] = []
    with mpl.rc_context(STYLE):
        size = (across * PANEL_INCHES[min(across, 3)], down * (PANEL_HEIGHT + 0.25) + 0.45)
        drawn = Figure(figsize=size, layout="constrained")
        axes = drawn.subplots(down, across, squeeze=False).flatten()
        for panel, own in zip(figure.panels, axes, strict=False):
            for line in panel.lines:
                curve = _curve(panel, line, study)
                if curve is not None:
                    rows += _rows(panel, line, curve)
                    _draw(own, panel, line, curve)
                _reference(own, figure, line, paper)
            _finish(own, panel)
        for spare in axes[len(figure.panels) :]:
            spare.set_axis_off()
        shown: dict[str, Any] = {}
        for own in axes:
            handles, labels = own.get_legend_handles_labels()
            shown |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in shown}
        if shown:
            entry = MARK_INCHES + LETTER_INCHES * max(map(len, shown))
            columns = max(1, min(len(shown), int(size[0] / entry)))
            drawn.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=columns)
    output.figure(figure.name, drawn)
    output.csv(f"{figure.name}_curves", rows)


def _curve(panel: Panel, line: Line, study: Study) -> LearningCurve | None:
    runs = [run for run in study.done(line.runs) if run.metrics.get(panel.key)]
    if not runs:
        return None
    # A resumed run may have logged twice at one step: the later one counts.
    seeds = [sorted(dict(run.metrics[panel.key]).items()) for run in runs]
    spacing = max(int(run.config.get("test_interval") or 1) for run in runs)
    env_steps, values = on_grid(seeds, spacing)
    if len(env_steps) == 0:
        return None
    return LearningCurve(env_steps, bootstrap([panel.scale * values], mean, CURVE_REPETITIONS), seeds)


def _rows(panel: Panel, line: Line, curve: LearningCurve) -> Iterable[dict[str, Any]]:
    about: dict[str, Any] = {"panel": panel.title, "metric": panel.key, "algorithm": line.runs.algorithm}
    about |= {"environment": line.runs.environment, "n_seeds": len(curve.seeds)}
    estimate = curve.estimate
    for t, *values in zip(curve.env_steps, estimate.value, estimate.low, estimate.high, strict=True):
        yield about | {"env_steps": int(t)} | dict(zip(("mean", "low", "high"), map(float, values), strict=True))


def _draw(axes: Axes, panel: Panel, line: Line, curve: LearningCurve) -> None:
    color, dash = COLORS[line.look % len(COLORS)], LINES[line.dash % len(LINES)]
    axes.fill_between(curve.env_steps, curve.estimate.low, curve.estimate.high, color=color, alpha=0.18, linewidth=0)
    axes.plot(curve.env_steps, curve.estimate.value, color=color, linestyle=dash, label=line.title)


def _reference(axes: Axes, figure: Curves, line: Line, paper: PaperNumbers) -> None:
    """The paper's final value, where a number is on record."""
    found = paper.find(figure.name, "imitation_accuracy", *line.paper) if line.paper else None
    if isinstance(found, float):
        axes.axhline(found, color=COLORS[line.look], linewidth=0.7, linestyle=(0, (1, 2)), label=f"paper, {line.title}")


def _finish(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_title(panel.title)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(panel.ylabel)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.share:
        axes.set_ylim(-100 * MARGIN, 100 * (1 + MARGIN))
    if not axes.collections:
        axes.text(0.5, 0.5, "no finished run", transform=axes.transAxes, ha="center", va="center", color="#888888")
