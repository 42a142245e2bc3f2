"""One state and one episode: learned coefficients beside distances, and the paths of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from reports.plots import COLORS, PANEL_INCHES, STYLE
from reproduction.output import Output
from reproduction.points import Found
from reproduction.specs import Source
from reproduction.study import Study
from reproduction.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOMENTS = 4
_LEARNED, _NEAREST = "#D55E00", "#000000"

Array = NDArray[Any]


def first_found(source: Source, study: Study) -> Found:
    """The measurement of the first seed that has one.

    Raises:
        UserError: none has.
    """
    measured = study.measured(source)
    if not measured:
        runs = source.runs
        raise UserError(f"no measured run of {runs.algorithm} on {runs.environment} ({runs.experiment_set})")
    return measured[min(measured)]


def write_coefficients(name: str, title: str, source: Source, study: Study, output: Output) -> None:
    """The learned scores of one state beside the distances, with the assignments that the LP makes of each."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = first_found(source, study)
    learned, nearest = np.array(found["assign"]), np.array(found["nearest"])
    differs = np.flatnonzero((learned != nearest).any(1))
    state = int(differs[0]) if len(differs) else 0
    scores, distance = np.array(found["scores"][state]), np.array(found["costs"]["distance"][state])
    chosen, near, capacity = learned[state], nearest[state], found["capacity"][state]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(2 * PANEL_INCHES[2], 0.36 * len(scores) + 1.1), layout="constrained")
        panels = figure.subplots(1, 2)
        # Dark is what the LP prefers: large scores, small distances.
        _heat_map(panels[0], scores, "Blues", "learned scores $C$", (chosen, near), capacity)
        _heat_map(panels[1], distance, "Blues_r", "distance", (chosen, near), capacity)
        panels[0].set_ylabel("agent")
        figure.legend(handles=_marks(), loc="outside lower center", ncols=2)
    output.figure(name, figure)
    pairs = [(agent, task) for agent in range(len(scores)) for task in range(len(scores[0]))]
    output.csv(
        name,
        (
            {
                "state": state,
                "agent": agent + 1,
                "task": task + 1,
                "capacity": capacity[task],
                "score": scores[agent, task],
                "distance": distance[agent, task],
                "assigned_by_scores": int(chosen[agent] == task),
                "assigned_by_distance": int(near[agent] == task),
            }
            for agent, task in pairs
        ),
    )
    which = (
        f"the first of {len(learned)} test states in which the two assignments differ"
        if len(differs)
        else f"the first test state; in none of {len(learned)} do the two assignments differ"
    )
    share = 100 * float((learned == nearest).mean())
    output.markdown(
        name,
        title,
        [
            f"![{title}]({name}.png)",
            "",
            f"Shown is {which}. Over these states {share:.0f} % of the agents get the same task from both.",
            "Columns are the tasks with their capacity; dark is what the LP prefers.",
        ],
    )


def _heat_map(axes: Axes, values: Array, colors: str, title: str, assigned: Sequence[Array], capacity: Any) -> None:
    from matplotlib.patches import Rectangle

    image = axes.imshow(values, cmap=colors, aspect="auto")
    middle = (values.min() + values.max()) / 2
    for (agent, task), value in np.ndenumerate(values):
        dark = (value > middle) != colors.endswith("_r")
        axes.text(task, agent, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    for tasks, color, style, inset in zip(assigned, (_LEARNED, _NEAREST), ("-", "--"), (0.04, 0.11), strict=True):
        for agent, task in enumerate(tasks):
            corner, size = (task - 0.5 + inset, agent - 0.5 + inset), 1 - 2 * inset
            box = Rectangle(corner, size, size, fill=False, edgecolor=color, linestyle=style, linewidth=1.4)
            axes.add_patch(box)
    axes.set_xticks(range(values.shape[1]), [f"{task + 1} ({held})" for task, held in enumerate(capacity)])
    axes.set_yticks(range(values.shape[0]), [str(agent + 1) for agent in range(values.shape[0])])
    axes.tick_params(length=0)
    axes.set_xlabel("task (capacity)")
    axes.set_title(title)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, ax=axes, shrink=0.9).outline.set_visible(False)


def _marks() -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(fill=False, edgecolor=_LEARNED, linewidth=1.4, label="LP on the scores"),
        Patch(fill=False, edgecolor=_NEAREST, linewidth=1.4, linestyle="--", label="LP on the distance"),
    ]


def write_path(name: str, title: str, source: Source, study: Study, output: Output) -> None:
    """An episode at a few steps: paths so far, landmarks with their capacity, whose task is which."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    episodes = first_found(source, study)["episodes"]
    number = next((index for index, episode in enumerate(episodes) if episode["success"]), 0)
    episode = episodes[number]
    position, assign = np.array(episode["position"]), np.array(episode["assign"])
    last = len(position) - 1
    moments = sorted({round(last * part / (MOMENTS - 1)) for part in range(MOMENTS)})
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(7.0, 7.0 / MOMENTS + 0.35), layout="constrained")
        for axes, t in zip(figure.subplots(1, MOMENTS), moments, strict=False):
            _arena(axes, episode, position[: t + 1], assign[min(t, len(assign) - 1)])
            axes.set_title(f"step {t}")
    output.figure(name, figure)
    output.csv(
        name,
        (
            {"step": t, "agent": agent + 1, "x": x, "y": y, "task": int(assign[min(t, last - 1), agent]) + 1}
            for t, places in enumerate(position.tolist())
            for agent, (x, y) in enumerate(places)
        ),
    )
    landmarks = [
        [str(task + 1), str(held), f"({x:.2f}, {y:.2f})"]
        for task, (held, (x, y)) in enumerate(zip(episode["capacity"], episode["landmarks"], strict=True))
    ]
    output.markdown(
        name,
        title,
        [
            f"![{title}]({name}.png)",
            "",
            f"Test episode {number + 1}, {'successful' if episode['success'] else 'without success'} after {last} steps"
            f"{' (the first successful one)' if episode['success'] else ''}. Circles are landmarks, the number in them "
            "is the capacity; agents have the color of their task and leave their path.",
            "",
            *markdown_table(["landmark", "capacity", "place"], landmarks),
        ],
    )


def _arena(axes: Axes, episode: Found, position: Array, assign: Array) -> None:
    from matplotlib.patches import Circle

    for task, (x, y) in enumerate(episode["landmarks"]):
        color = COLORS[task % len(COLORS)]
        axes.add_patch(Circle((x, y), episode["task_radius"], facecolor=color, alpha=0.18, linewidth=0))
        axes.add_patch(Circle((x, y), episode["task_radius"], fill=False, edgecolor=color, linewidth=0.8))
        axes.text(x, y, str(episode["capacity"][task]), ha="center", va="center", color=color, fontweight="bold")
    for agent, task in enumerate(assign):
        color = COLORS[int(task) % len(COLORS)]
        axes.plot(position[:, agent, 0], position[:, agent, 1], color=color, linewidth=0.8, alpha=0.7)
        axes.add_patch(Circle(position[-1, agent], episode["agent_radius"], color=color, zorder=3))
    reach = 1.05 * max(episode["half_width"], float(np.abs(position).max()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#bbbbbb")
