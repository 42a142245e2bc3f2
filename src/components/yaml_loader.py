"""Strict YAML: the 1.2 core schema, no code, no duplicate keys, and the line of every key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from components.errors import UserError

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR = (_TAG + kind for kind in ("null", "bool", "int", "float", "str"))
_DIGITS = list("-+.0123456789")


@dataclass(frozen=True)
class LoadedYaml:
    """A mapping read from a file.

    Attributes:
        values: the mapping, nested mappings included.
        lines: dotted key -> line (from 1) on which the key stands.
    """

    values: dict[str, Any]
    lines: dict[str, int]


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Text -> tree of nodes; it has no constructor, so a tag cannot make it create an object."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses anchors and aliases: a few of them expand to gigabytes or to a mapping inside itself."""
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors (&) and aliases (*) are not supported; quote a text that starts with & or *",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _CommandLineLoader(_Loader):
    """The same rules, and Python's spelling of null."""


_Loader.add_implicit_resolver(_NULL, re.compile(r"(~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), _DIGITS)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"),
    _DIGITS,
)
_CommandLineLoader.add_implicit_resolver(_NULL, re.compile(r"None\Z"), ["N"])


def _to_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _to_int(text: str) -> int:
    based = text.startswith(("0o", "0x"))
    return int(text, 0) if based else int(text)


def _to_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda text: None,
    _BOOL: _to_bool,
    _INT: _to_int,
    _FLOAT: _to_float,
    _STR: str,
}


def load_yaml(path: Path, shown: str | None = None) -> LoadedYaml:
    """Reads a file that holds one mapping.

    Args:
        path: the file.
        shown: what messages call the file; its path when absent.

    Raises:
        UserError: unreadable file, bad syntax, duplicate key, a tag beyond the core schema, or no mapping at
            the top; the message names file and line.
    """
    name = shown or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{name}:{line}: not UTF-8 text") from error
    node = _compose(text, name, _Loader)
    if node is None:
        return LoadedYaml({}, {})
    lines: dict[str, int] = {}
    values = _build(node, name, "", lines)
    if not isinstance(values, dict):
        raise UserError(f"{name}:{_line(node.start_mark)}: expected lines of the form key: value")
    return LoadedYaml(values, lines)


def parse_value(text: str) -> Any:
    """The value of ``key=value`` on the command line, by the rules of the files.

    ``None`` is null too, ``[...]`` a list, quotes make a text; an empty value and everything else stay a text,
    which is never evaluated.
    """
    stripped = text.strip()
    try:
        node = _compose(stripped, "value", _CommandLineLoader)
        if node is None or not _is_whole_value(node, stripped):
            return text
        return _build(node, "value", "", {})
    except UserError:
        return text


def _is_whole_value(node: yaml.Node, text: str) -> bool:
    """Whether the node is all of the text: no tag, comment or second line went missing."""
    if isinstance(node, yaml.ScalarNode) and node.style is None:
        return bool(node.value == text)
    starts = text.startswith("[") if isinstance(node, yaml.SequenceNode) else text.startswith(("'", '"'))
    return starts and node.end_mark.index == len(text)


def _compose(text: str, name: str, loader_class: type[_Loader]) -> yaml.Node | None:
    try:
        return loader_class(text).get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{name}:{line}: a character that YAML does not allow ({error.reason})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{name}:{_line(mark)}: not valid YAML: {error.problem or error.context}") from error
    except RecursionError as error:
        raise UserError(f"{name}: nested too deeply") from error


def _build(node: yaml.Node, name: str, prefix: str, lines: dict[str, int]) -> Any:
    where = f"{name}:{_line(node.start_mark)}"
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _build_mapping(node, name, prefix, lines)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_build(item, name, f"{prefix}{index}.", {}) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise UserError(f"{where}: the tag {node.tag.replace(_TAG, '!!')!r} is not allowed; write a plain value")
    try:
        return _SCALARS[node.tag](node.value)
    except (ValueError, KeyError) as error:
        kind = node.tag.removeprefix(_TAG)
        raise UserError(f"{where}: {node.value[:40]!r} cannot be read as !!{kind}") from error


def _build_mapping(node: yaml.MappingNode, name: str, prefix: str, lines: dict[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node.start_mark)
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
            raise UserError(f"{name}:{line}: a key must be a word; quote it if it is meant as text")
        if "." in key:
            raise UserError(f"{name}:{line}: the key {key!r} contains a dot; nest it: 'a.b: 1' is 'a: {{b: 1}}'")
        if key in values:
            raise UserError(f"{name}:{line}: duplicate key {prefix + key!r}, already on line {lines[prefix + key]}")
        lines[prefix + key] = line
        values[key] = _build(value_node, name, f"{prefix}{key}.", lines)
    return values


def _line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1
