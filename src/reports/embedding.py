"""Pages that work from a file: a template with its data inside, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError

PAGES = Path(__file__).parent / "pages"
MARK = "{{DATA}}"
HEAD_BYTES = 1000


def page_with_data(template: str, data: Any) -> str:
    """A template of ``reports/pages`` whose one ``{{DATA}}`` is replaced by JSON.

    Args:
        template: the file's name.
        data: plain JSON values; what is not finite becomes the text "NaN", "Infinity" or "-Infinity".
    """
    before, _, after = (PAGES / template).read_text(encoding="utf-8").partition(MARK)
    return f"{before}{script_json(data)}{after}"


def script_json(data: Any) -> str:
    """JSON that may stand inside a ``<script>`` element: ASCII, and no ``<`` that could end it or open a comment."""
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def require_replaceable(path: Path, generator: str) -> None:
    """Raises ``UserError`` when ``path`` is neither free nor a page of the same generator (its ``<meta>`` element)."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if path.exists():
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if f'content="{generator}"'.encode() not in head:
            raise UserError(f"{path} exists and is not a page of this command: it is not overwritten")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
