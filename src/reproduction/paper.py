"""The paper's numbers, read from one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.registry import did_you_mean
from components.yaml_loader import LoadedYaml, load_yaml
from reproduction.specs import Table

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "paper" / "paper_numbers.yaml"
NOTHING = "–"
UNKNOWN = f"{NOTHING}: the paper's number is not on record here; it belongs into benchmarks/paper/paper_numbers.yaml."

Value = float | str
Place = tuple[str, str, str, str]  # table, metric, row, column


@dataclass(frozen=True)
class PaperNumbers:
    """Values by (table, metric, row, column); what is not on record is absent."""

    values: Mapping[Place, Value]

    def shown(self, *place: str) -> str:
        """A number as text, an en dash where it is not on record."""
        found = self.find(*place)
        return NOTHING if found is None else found if isinstance(found, str) else f"{found:g}"

    def find(self, *place: str) -> Value | None:
        """A number, a text such as "> 90", or ``None``."""
        table, metric, row, column = place
        return self.values.get((table, metric, row, column))


def read_paper_numbers(tables: Sequence[Table], path: Path = FILE) -> PaperNumbers:
    """Reads and checks the file.

    Args:
        tables: what its names may be.
        path: the file.

    Raises:
        UserError: every unknown name and every value that is no number, with its line.
    """
    loaded = load_yaml(path, path.name)
    reader = _Reader(loaded, path.name)
    known = {table.name: table for table in tables if table.in_paper}
    for name, metrics in reader.children(loaded.values, "", list(known)):
        table = known[name]
        for metric, rows in reader.children(metrics, name, [metric.name for metric in table.metrics]):
            for row, columns in reader.children(rows, f"{name}.{metric}", list(table.rows)):
                for column, value in reader.children(columns, f"{name}.{metric}.{row}", list(table.columns)):
                    reader.take((name, metric, row, column), value)
    if reader.faults:
        raise UserError("\n".join(reader.faults))
    return PaperNumbers(reader.values)


class _Reader:
    """Collects values and faults."""

    def __init__(self, loaded: LoadedYaml, shown: str) -> None:
        self._lines = loaded.lines
        self._shown = shown
        self.values: dict[Place, Value] = {}
        self.faults: list[str] = []

    def children(self, given: Any, dotted: str, known: list[str]) -> list[tuple[str, Any]]:
        """The entries of a mapping whose names are known; the others are faults."""
        if not isinstance(given, dict):
            self._fault(dotted, f"expected a mapping with {', '.join(known)}")
            return []
        for name in given:
            if name not in known:
                self._fault(f"{dotted}.{name}".lstrip("."), f"unknown name {name!r}{did_you_mean(name, known)}")
        return [(name, value) for name, value in given.items() if name in known]

    def take(self, place: Place, value: Any) -> None:
        """One number; null is none."""
        if isinstance(value, bool) or not isinstance(value, int | float | str | None):
            self._fault(".".join(place), 'expected a number, a text such as "> 90", or null')
        elif value is not None:
            self.values[place] = value if isinstance(value, str) else float(value)

    def _fault(self, dotted: str, message: str) -> None:
        self.faults.append(f"{self._shown}:{self._lines.get(dotted, 1)}: {message}")
