"""Plain words for what an option accepts and what it was given."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

_NOUNS: dict[Any, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
_BOUNDS = (
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "<="),
)


def expectation(field: FieldInfo) -> str:
    """What a field accepts, such as ``"an integer >= 1 or null"``; empty when there are no plain words for it."""
    return _describe(field.annotation, field.metadata)


def kind_of(value: Any) -> str:
    """The kind of a configuration value in plain words."""
    if value is None:
        return "null"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    return _NOUNS.get(type(value), type(value).__name__)


def _describe(annotation: Any, metadata: Iterable[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin is Literal:
        return _one_of(arguments)
    if origin in (Union, types.UnionType):
        return _describe_union(arguments, list(metadata))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _one_of(member.value for member in annotation)
    collection = _describe_collection(origin or annotation, arguments)
    noun = collection or _NOUNS.get(annotation, "")
    return " ".join(filter(None, [noun, _limits(metadata)])) if noun else ""


def _describe_union(members: tuple[Any, ...], metadata: list[Any]) -> str:
    described = [_describe(member, metadata) for member in members if member is not type(None)]
    if not all(described):
        return ""
    return " or ".join([*described, "null"] if type(None) in members else described)


def _describe_collection(origin: Any, arguments: tuple[Any, ...]) -> str:
    if not isinstance(origin, type) or issubclass(origin, str):
        return ""
    if issubclass(origin, Mapping):
        return "a mapping (key: value)"
    if not issubclass(origin, Sequence):
        return ""
    items = [_describe(argument, ()) for argument in arguments if argument is not Ellipsis]
    if issubclass(origin, tuple) and Ellipsis not in arguments and items:
        return f"a list [{', '.join(items)}]"
    return f"a list (each item {items[0]})" if items and items[0] else "a list"


def _limits(metadata: Iterable[Any]) -> str:
    words = [
        f"{symbol} {getattr(item, name)}"
        for item in _flat(metadata)
        for kind, name, symbol in _BOUNDS
        if isinstance(item, kind)
    ]
    for item in _flat(metadata):
        if isinstance(item, annotated_types.MinLen):
            words.append(f"of length >= {item.min_length}")
        if isinstance(item, annotated_types.MaxLen):
            words.append(f"of length <= {item.max_length}")
    return " and ".join(words)


def _flat(metadata: Iterable[Any]) -> list[Any]:
    return [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _one_of(choices: Iterable[Any]) -> str:
    words = ["null" if choice is None else repr(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
