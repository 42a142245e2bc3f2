"""The decisions of one fight: who is given which enemy, each time that somebody has died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.plots import COLORS, STYLE
from reproduction.output import Output
from reproduction.pictures import first_found
from reproduction.points import Found
from reproduction.specs import Source
from reproduction.study import Study
from reproduction.tables import NOTHING, markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# At most so many decisions are drawn, spread evenly; the table has all.
MOMENTS, ACROSS = 8, 4


def write_fight(name: str, title: str, source: Source, study: Study, output: Output) -> None:
    """The first won test episode: places and assignments at its decisions."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    episodes = first_found(source, study)["episodes"]
    number = next((index for index, episode in enumerate(episodes) if episode["success"]), 0)
    episode = episodes[number]
    events = episode["events"]
    shown = sorted({round(index) for index in np.linspace(0, len(events) - 1, min(MOMENTS, len(events)))})
    down = -(-len(shown) // ACROSS)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(7.0, 1.85 * down + 0.3), layout="constrained")
        panels = list(figure.subplots(down, ACROSS, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
        for axes, index in zip(panels, shown, strict=False):
            axes.set_axis_on()
            _field(axes, events[index], events[0])
    output.figure(name, figure)
    output.csv(
        name,
        (
            {"step": event["t"], "agent": agent + 1, "x": x, "y": y, "task": _task(event, agent)}
            for event in events
            for agent, (x, y) in enumerate(event["agents"])
        ),
    )
    output.markdown(
        name,
        title,
        [
            f"![{title}]({name}.png)",
            "",
            f"Test episode {number + 1}, {'won' if episode['success'] else 'lost'} after {episode['length']} steps"
            f"{' (the first one that was won)' if episode['success'] else ''}. Dots are agents, in the color of the "
            "enemy that they are given and joined to it by a line; diamonds are enemies, the paler the weaker.",
            "",
            *markdown_table(
                ["step", "agents", "enemies", "capacity", "agents on each enemy"],
                [
                    [
                        *map(str, (event["t"], sum(event["agent_alive"]), sum(event["task_alive"]))),
                        str(max(event["capacity"])),
                        ", ".join(_loads(event)),
                    ]
                    for event in events
                ],
            ),
        ],
    )


def _task(event: Found, agent: int) -> int | str:
    return event["assign"][agent] + 1 if event["agent_alive"][agent] else ""


def _loads(event: Found) -> list[str]:
    """How many living agents each enemy has."""
    given = [task for task, alive in zip(event["assign"], event["agent_alive"], strict=True) if alive]
    return [str(given.count(task)) if alive else NOTHING for task, alive in enumerate(event["task_alive"])]


def _field(axes: Axes, event: Found, first: Found) -> None:
    agents, tasks = np.array(event["agents"]), np.array(event["tasks"])
    left = np.array(event["health"]) / np.array(first["health"]) if "health" in event else np.ones(len(tasks))
    for task, (x, y) in enumerate(tasks):
        color = COLORS[task % len(COLORS)]
        if event["task_alive"][task]:
            alpha = 0.15 + 0.85 * float(np.clip(left[task], 0, 1))
            axes.scatter(x, y, s=52, marker="D", color=color, alpha=alpha, linewidths=0)
            axes.scatter(x, y, s=52, marker="D", facecolors="none", edgecolors=color, linewidths=0.8)
            axes.annotate(str(task + 1), (x, y), (5, 0), textcoords="offset points", fontsize=6, va="center")
    for agent, (x, y) in enumerate(agents):
        if event["agent_alive"][agent]:
            task = event["assign"][agent]
            color = COLORS[task % len(COLORS)]
            axes.plot([x, tasks[task, 0]], [y, tasks[task, 1]], color=color, linewidth=0.7, alpha=0.8, zorder=0)
            axes.scatter(x, y, s=22, color=color, zorder=3)
    places = np.concatenate([agents[event["agent_alive"]], tasks[event["task_alive"]]])
    low, high = places.min(0), places.max(0)
    middle, reach = (low + high) / 2, 0.58 * max(float((high - low).max()), 0.2)
    axes.set(xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]), aspect="equal")
    axes.set(xticks=[], yticks=[], title=f"step {event['t']}")
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#bbbbbb")
