"""Files with what they come from: command, seeds, commits, machine."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import write_text_atomic
from reports.plots import save_figure
from reports.report import machines
from reports.run_records import RunRecord
from reproduction.specs import Source
from reproduction.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class About:
    """Where a table or figure comes from.

    Attributes:
        command: makes it again.
        label: what sets it apart from the full result, such as "quick: ..."; else empty.
        seeds: of the runs.
        commits: of the program that trained.
        measured: commits of the program that measured.
        machine: where the runs were made.
    """

    command: str
    label: str
    seeds: str
    commits: str
    measured: str
    machine: str

    @property
    def entries(self) -> dict[str, str]:
        """By name, without what is empty."""
        return {name: value for name, value in vars(self).items() if value}

    @property
    def line(self) -> str:
        """All in one line."""
        return "; ".join(f"{name}: {value}" for name, value in self.entries.items())


def about(study: Study, sources: Iterable[Source], command: str, label: str) -> About:
    """Of the finished runs and the measurements that these sources have."""
    sources = list(sources)
    runs = {str(run.folder): run for source in sources for run in study.done(source.runs)}
    measured = [found["commit"] for source in sources for found in study.measured(source).values()]
    seeds = sorted({int(run.seed or 0) for run in runs.values()})
    return About(
        command,
        label,
        ", ".join(map(str, seeds)),
        _commits([run.commit for run in runs.values()]),
        _commits(measured),
        _machines(list(runs.values())),
    )


class Output:
    """The folder that tables and figures are written into.

    Args:
        folder: made where it is absent.
        about: of the files that are written.
    """

    def __init__(self, folder: Path, about: About) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.about = about
        self.files: list[Path] = []

    def markdown(self, name: str, title: str, lines: Sequence[str]) -> None:
        """``name.md``: the title, the label, the lines, where it comes from."""
        label = [f"**{self.about.label}**", ""] if self.about.label else []
        origin = [
            f"- {key}: {f'`{value}`' if key == 'command' else value}" for key, value in self.about.entries.items()
        ]
        text = "\n".join([f"# {title}", "", *label, *lines, "", "## Where this comes from", "", *origin, ""])
        write_text_atomic(self._file(f"{name}.md"), text)

    def csv(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """``name.csv``: each line says where it comes from, as CSV has no other place for it."""
        lines = [{**row, **self.about.entries} for row in rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text_atomic(self._file(f"{name}.csv"), text.getvalue())

    def figure(self, name: str, figure: Figure) -> None:
        """``name.png`` and ``name.svg``; the label stands above the picture."""
        if self.about.label:
            figure.suptitle(self.about.label, fontsize=7, color="#b00020")
        for suffix in ("png", "svg"):
            save_figure(figure, self._file(f"{name}.{suffix}"), self.about.line)

    def _file(self, name: str) -> Path:
        self.files.append(self.folder / name)
        return self.files[-1]


def _commits(found: Iterable[Mapping[str, Any]]) -> str:
    names = {f"{str(one.get('commit', 'unknown'))[:12]}{' (changed)' if one.get('dirty') else ''}" for one in found}
    return ", ".join(sorted(names))


def _machines(runs: Sequence[RunRecord]) -> str:
    found = [f"{machine['cpu']}, {machine['os']}, Python {machine['python']}" for machine in machines(runs)]
    return "; ".join(found)
