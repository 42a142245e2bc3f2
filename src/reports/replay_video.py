"""A video of a replay: arenas and score matrices, drawn with Matplotlib, encoded by ffmpeg."""

from __future__ import annotations

import string
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.files import temporary_sibling

COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#9b4db0", "#e3b000"),
    *("#56b4e9", "#882255", "#7a6a4f", "#e58fbd", "#332288"),
)
GREY = "#8a96a3"
WIDTH, HEIGHT, DPI = 1280, 720, 100
FRAMES_PER_SECOND = 6
# The last state of an episode stays for so many frames.
PAUSE = 6
# What is farther outside of the arena than this is cut off; of half of its width.
FAR = 1.25
TRAIL = 12
CODECS = {
    ".mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"),
    ".gif": ("-vf", "scale=960:-1:flags=lanczos,split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse"),
}


def require_video(path: Path) -> None:
    """Raises ``UserError`` when no video can be written to ``path``: wrong ending, taken name, missing package."""
    if path.suffix not in CODECS:
        raise UserError(f"--video {path}: the name must end in {' or '.join(CODECS)}")
    if not path.parent.is_dir():
        raise UserError(f"--video {path}: there is no folder {path.parent}")
    if path.exists():
        raise UserError(f"--video {path}: it exists and is not overwritten, give another name")
    _ffmpeg()


def write_video(path: Path, panels: Sequence[Mapping[str, Any]]) -> Path:
    """Writes all episodes, one after the other, panels side by side; returns ``path``.

    Raises:
        UserError: see :func:`require_video`; or ffmpeg failed.
    """
    require_video(path)
    temporary = temporary_sibling(path).with_suffix(path.suffix)
    size = f"{WIDTH}x{HEIGHT}"
    source = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", size, "-r", str(FRAMES_PER_SECOND), "-i", "-")
    command = [_ffmpeg(), "-loglevel", "error", "-y", *source, "-an", *CODECS[path.suffix], str(temporary)]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
            complaint = _feed(encoder, frames(panels))
        if encoder.returncode:
            raise UserError(f"--video {path}: ffmpeg failed: {complaint}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def frames(panels: Sequence[Mapping[str, Any]]) -> Iterator[NDArray[np.uint8]]:
    """[HEIGHT, WIDTH, 4] RGBA images of every step of every episode."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for number in range(len(panels[0]["episodes"])):
        length = max(panel["episodes"][number]["length"] for panel in panels)
        for t in range(length + 1):
            figure.clear()
            grid = figure.add_gridspec(
                2, len(panels), height_ratios=(2, 1), left=0.05, right=0.97, top=0.9, bottom=0.06, hspace=0.22
            )
            figure.suptitle(f"episode {number + 1}, step {t} of {length}", x=0.5, y=0.975, fontsize=12)
            for column, panel in enumerate(panels):
                episode = panel["episodes"][number]
                _draw_arena(figure.add_subplot(grid[0, column]), panel, episode, min(t, episode["length"]))
                _draw_scores(figure.add_subplot(grid[1, column]), panel, episode, min(t, episode["length"]))
            canvas.draw()
            image = np.asarray(canvas.buffer_rgba())
            for _ in range(PAUSE if t == length else 1):
                yield image


def _draw_arena(axes: Any, panel: Mapping[str, Any], episode: Mapping[str, Any], t: int) -> None:
    from matplotlib.patches import Circle

    points = np.array(episode["agents"]).reshape(episode["length"] + 1, -1, 2)
    tasks = np.array(_at(episode["tasks"], t)).reshape(-1, 2)
    capacity, assign = _at(episode["capacity"], t), _assigned(panel, episode, t)
    distance = np.sqrt(np.square(points[t][:, None] - tasks[None]).sum(-1))
    present = np.where(distance.min(1) < panel["task_radius"], distance.argmin(1), -1)
    for j, (x, y) in enumerate(tasks):
        here = int((present == j).sum())
        full = here == capacity[j]
        axes.add_patch(Circle((x, y), panel["task_radius"], color=_color(j), alpha=0.25 if full else 0.1, lw=0))
        axes.add_patch(Circle((x, y), panel["task_radius"], ec=_color(j), fill=False, lw=2.5 if full else 1))
        label = f"{_letter(j)} {here}/{capacity[j]}"
        axes.text(
            x, y + panel["task_radius"] + 0.05, label, ha="center", va="bottom", fontsize=8, weight="bold", zorder=5
        )
    for i, (x, y) in enumerate(points[t]):
        own = int(assign[i]) if assign is not None else int(present[i])
        past = points[max(0, t - TRAIL) : t + 1, i]
        axes.plot(past[:, 0], past[:, 1], color=_color(own), alpha=0.35, lw=1.5)
        if assign is not None and own >= 0:
            axes.plot((x, tasks[own][0]), (y, tasks[own][1]), color=_color(own), lw=1.2, alpha=0.8)
        axes.add_patch(Circle((x, y), max(panel["agent_radius"], 0.05), fc=_color(own), ec="white", lw=1, zorder=3))
        axes.text(x, y, str(i), ha="center", va="center_baseline", fontsize=7, color="white", weight="bold", zorder=4)
    ended = f": success at step {t}" if t == episode["length"] and episode["success"] else ""
    axes.set_title(f"{panel['title']}{ended}", fontsize=11, weight="bold" if ended else "normal")
    middle, half = _view(panel, episode)
    limits = [(place - half, place + half) for place in middle]
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal", xticks=[], yticks=[])


def _view(panel: Mapping[str, Any], episode: Mapping[str, Any]) -> tuple[Any, float]:
    """Middle [2] and half the side of the square that holds all of the episode, not far outside of the arena."""
    places = np.concatenate(
        [np.reshape(row, (-1, 2)) for row in (episode["agents"], *(at for _, at in episode["tasks"]))]
    )
    if panel["half_width"]:
        places = places.clip(-FAR * panel["half_width"], FAR * panel["half_width"])
    low, high = places.min(0), places.max(0)
    return (low + high) / 2, float((high - low).max() / 2 + max(panel["agent_radius"], panel["task_radius"]) + 0.1)


def _draw_scores(axes: Any, panel: Mapping[str, Any], episode: Mapping[str, Any], t: int) -> None:
    """Tasks down, agents across: the lower row of the picture is wide."""
    from matplotlib.patches import Rectangle

    made = [decision for decision in episode["decisions"] if decision["t"] <= t and "scores" in decision]
    if not made:
        axes.axis("off")
        axes.text(0.5, 0.5, "no scores", ha="center", va="center", color="#4c5966", transform=axes.transAxes)
        return
    scores = np.array(made[-1]["scores"], dtype=np.float64).T
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    # The best cells stay light enough for a black outline.
    axes.imshow(scores, cmap="Blues", aspect="auto", vmin=low, vmax=high + 0.6 * (high - low) + 1e-9)
    assign = _assigned(panel, episode, t)
    for i, j in enumerate(assign if assign is not None else []):
        axes.add_patch(Rectangle((i - 0.48, j - 0.46), 0.96, 0.92, fill=False, ec="black", lw=1.8))
    for (j, i), value in np.ndenumerate(scores):
        axes.text(i, j, f"{value:.2f}", ha="center", va="center", fontsize=7)
    axes.set_title(f"scores at step {made[-1]['t']}, chosen cells outlined", fontsize=9)
    axes.set_xticks(range(panel["n_agents"]), [str(i) for i in range(panel["n_agents"])], fontsize=7)
    axes.set_yticks(range(panel["n_tasks"]), [_letter(j) for j in range(panel["n_tasks"])], fontsize=7)
    axes.tick_params(length=0)


def _assigned(panel: Mapping[str, Any], episode: Mapping[str, Any], t: int) -> list[int] | None:
    return _at(episode["assign"], t) if panel["assigns"] else None


def _at(changes: Sequence[Sequence[Any]], t: int) -> Any:
    """The row of [[t, row], ...] that holds at step t."""
    return [row for start, row in changes if start <= t][-1]


def _color(task: int) -> str:
    return GREY if task < 0 else COLORS[task % len(COLORS)]


def _letter(task: int) -> str:
    return string.ascii_uppercase[task] if task < len(string.ascii_uppercase) else str(task)


def _feed(encoder: subprocess.Popen[bytes], images: Iterator[NDArray[np.uint8]]) -> str:
    """Hands the images over; returns what the encoder complained of."""
    pipe, complaints = encoder.stdin, encoder.stderr
    if pipe is None or complaints is None:
        raise ValueError("the encoder was not started with pipes")
    try:
        for image in images:
            pipe.write(image.tobytes())
        pipe.close()
    except BrokenPipeError:  # its complaint says why
        pass
    return complaints.read().decode(errors="replace").strip()


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("a video needs the package imageio-ffmpeg: pip install -r requirements.txt") from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())
