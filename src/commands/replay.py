"""``python src/main.py replay PATH``: the replay page of a checkpoint, and a video of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from commands.arguments import Parser, split_overrides
from commands.trained import Trained, load_trained
from components.checkpoint import MANIFEST, load_into
from components.errors import UserError
from replays import SMALL, other_overrides, panel
from reports.embedding import require_replaceable
from reports.replay_page import GENERATOR, PAGE, write_replay_page
from reports.replay_video import require_video, write_video

_ABOUT = "Plays greedy episodes of a checkpoint and writes a page that shows them step by step, in any browser."
_MORE = """\
The second policy defaults to the algorithm's own reference: LPMARL with lp_distance beside LPMARL. The episodes are
neither training nor test episodes: they come from the seed in a stream of their own. Settings after 'with' change the
policy at PATH; seed and env_args change both.

examples:
  python src/main.py replay results/sacred/constrained_navigation/lpmarl/1
  python src/main.py replay RUN --beside high_policy=random_feasible --episodes 20
  python src/main.py replay RUN --against OTHER_RUN --output both.html
  python src/main.py replay RUN --video crowded.mp4 --episodes 2 with env_args.agent_radius=0.15
"""


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    words, overrides = split_overrides(argv)
    given = _parser().parse_args(words)
    if given.episodes < 1:
        raise UserError(f"--episodes = {given.episodes}: at least one is needed")
    output = given.output or _default_output(given.path)
    require_replaceable(output, GENERATOR)
    if given.video is not None:
        require_video(given.video)
    if given.seed is not None:
        overrides = [*overrides, f"seed={given.seed}"]
    with ExitStack() as stack:
        panels = _panels(given, overrides, stack)
    print(write_replay_page(output, panels))
    if given.video is not None:
        print(write_video(given.video, panels))


def _parser() -> Parser:
    parser = Parser(prog="main.py replay", description=_ABOUT, epilog=_MORE)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a run's folder (its newest checkpoint), or a checkpoint"
    )
    parser.add_argument("--episodes", type=int, default=8, metavar="N", help="episodes (default 8)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the episodes (default: the run's)")
    second = parser.add_mutually_exclusive_group()
    second.add_argument(
        "--beside", nargs="+", metavar="KEY=VALUE", help="second policy: the same networks with other options"
    )
    second.add_argument("--against", type=Path, metavar="PATH", help="second policy: another run or checkpoint")
    second.add_argument("--alone", action="store_true", help="no second policy")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the page (default: {PAGE} in the run's folder)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="also a video: .mp4 or .gif")
    return parser


def _panels(given: Namespace, overrides: list[str], stack: ExitStack) -> list[dict[str, Any]]:
    first = _load(given.path, overrides, stack)
    other, beside = None, given.beside or []
    if given.against is not None:
        shared = [text for text in overrides if text.startswith(("seed=", "env_args."))]
        other = _load(given.against, [f"seed={first.config.run.seed}", *shared], stack)
    elif not given.alone:
        beside = beside or other_overrides(first.config, first.parts.controller)
        other = _load(given.path, [*overrides, *beside], stack) if beside else None
    named = [*first.parts.controller.reference, *(text.partition("=")[0] for text in beside)]
    panels = [_panel(trained, given.episodes, named) for trained in (first, other) if trained is not None]
    if len({shown["title"] for shown in panels}) < len(panels):
        for shown, trained in zip(panels, (first, other), strict=True):
            shown["title"] += f" {_short_name(trained)}"
    return panels


def _load(path: Path, overrides: Sequence[str], stack: ExitStack) -> Trained:
    trained = load_trained(path, [*SMALL, *overrides])
    stack.callback(trained.parts.close)
    if trained.parts.learner.explains:
        load_into(trained.parts.learner, trained.learner, "learner")
    return trained


def _panel(trained: Trained, episodes: int, named: Sequence[str]) -> dict[str, Any]:
    parts, names = trained.parts, list(dict.fromkeys(named))
    return panel(trained.config, parts.controller, trained.clock, episodes, names, parts.learner)


def _short_name(trained: Trained | None) -> str:
    return "" if trained is None else "/".join(trained.folder.resolve().parts[-4:])


def _default_output(path: Path) -> Path:
    """``replay.html`` in the run's folder, or in the working directory for a checkpoint outside a run."""
    folders = [path, path.resolve().parent.parent] if (path / MANIFEST).is_file() else [path]
    runs = [folder for folder in folders if (folder / "config.json").is_file()]
    return runs[0] / PAGE if runs else Path(PAGE)
