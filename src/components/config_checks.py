"""Validation of merged values against the options models of the framework and of the chosen parts."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from components.config_layers import COMMAND_LINE, Layer
from components.config_messages import expectation, kind_of
from components.errors import UserError
from components.registry import Options, Registry

ENV_PREFIX = "env_args."
# Fits the integers and the 32-bit floats of arrays; whatever a run can use is far below.
LARGEST = 1e18
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Owner:
    """Who takes options: the framework or a chosen part.

    Attributes:
        label: how messages call it, such as ``"learner 'q_learner'"``.
        model: its options.
        prefix: what stands before its keys: ``"env_args."`` for the environment, else nothing.
    """

    label: str
    model: type[Options]
    prefix: str = ""

    def keys(self) -> set[str]:
        """The dotted keys that it takes."""
        return {self.prefix + key for key in self.model.model_fields}


@dataclass(frozen=True)
class Chosen:
    """The parts of a run.

    Attributes:
        owners: selector -> the part that it names.
        unknown: prefixes in which a part is not known, because its selector is missing or names nothing.
        unloadable: prefixes in which a part exists, but its optional package is missing.
    """

    owners: dict[str, Owner]
    unknown: set[str]
    unloadable: set[str]


def chosen_parts(merged: Layer, parts: Mapping[str, str], errors: list[str]) -> Chosen:
    """Looks up the parts that the selectors name; adds a message for each that cannot be had."""
    chosen = Chosen({}, set(), set())
    for selector, target in parts.items():
        name = merged.values.get(selector)
        prefix = _prefix(selector)
        if not isinstance(name, str):
            if name is not None or selector not in merged.values:
                chosen.unknown.add(prefix)
            continue
        registry = _registry(target)
        try:
            chosen.owners[selector] = Owner(f"{selector} {name!r}", registry.options(name), prefix)
        except UserError as error:
            errors.append(f"{selector} = {name!r} ({merged.sources[selector]}): {error}")
            (chosen.unloadable if name in registry else chosen.unknown).add(prefix)
    return chosen


def validate(owner: Owner, merged: Layer, errors: list[str]) -> Options | None:
    """Builds an owner's options from the keys that its model declares; adds a message for each fault.

    Beyond strict types, an integral float serves as an integer (1e6) and a list as a tuple.
    """
    namespace = _namespace(merged, owner.prefix)
    given = {key: namespace[key] for key in owner.model.model_fields if key in namespace}
    oversized = [key for key, value in given.items() if _oversized(value)]
    for key in oversized:
        source = merged.sources[owner.prefix + key]
        errors.append(f"{owner.prefix}{key} = {_shown(given[key])} ({source}): expected numbers up to {LARGEST:g}")
    attempt = given
    while True:
        try:
            options = owner.model.model_validate(attempt)
            return None if oversized else options
        except ValidationError as error:
            faults = error.errors()
        repaired = attempt
        for fault in faults:
            if _repairable(fault):
                repaired = _repaired(repaired, fault["loc"])
        if repaired is attempt:
            errors += [_message(owner, fault, given, merged.sources) for fault in faults]
            return None
        attempt = repaired


def unknown_keys(
    framework: Owner, chosen: Chosen, merged: Layer, parts: Mapping[str, str], errors: list[str]
) -> tuple[str, ...]:
    """Sorts out the keys that nobody in this run takes.

    Adds an error for a key of the command line, and for one of a file that no registered part takes.

    Returns:
        One message for each key of a file that belongs to a part that was not chosen.
    """
    accepted = framework.keys().union(*(owner.keys() for owner in chosen.owners.values()))
    unused = []
    for dotted in [*merged.values, *(ENV_PREFIX + key for key in _namespace(merged, ENV_PREFIX))]:
        prefix = ENV_PREFIX if dotted.startswith(ENV_PREFIX) else ""
        if dotted in accepted or prefix in chosen.unloadable:
            continue
        where = f"{dotted} ({merged.sources[dotted]})"
        belongs = _belongs(dotted, prefix, merged, parts)
        if not belongs:
            errors.append(f"{where}: unknown key{_nearest(dotted, prefix, accepted)}")
        elif merged.sources[dotted] != COMMAND_LINE:
            unused.append(f"{where} is not used: it {belongs}")
        elif prefix not in chosen.unknown:
            errors.append(f"{where}: {belongs}")
    return tuple(unused)


def _namespace(merged: Layer, prefix: str) -> dict[str, Any]:
    if prefix != ENV_PREFIX:
        return merged.values
    nested = merged.values.get("env_args")
    return nested if isinstance(nested, dict) else {}


def _prefix(selector: str) -> str:
    return ENV_PREFIX if selector == "env" else ""


def _registry(target: str) -> Registry:
    module, _, attribute = target.partition(":")
    registry: Registry = getattr(importlib.import_module(module), attribute)
    return registry


def _repairable(fault: ErrorDetails) -> bool:
    value = fault["input"]
    if fault["type"] == "int_type":
        return isinstance(value, float) and value.is_integer()
    return fault["type"] == "tuple_type" and isinstance(value, list)


def _repaired(value: Any, location: tuple[int | str, ...]) -> Any:
    """A copy of ``value`` with the float or list at ``location`` made an int or tuple."""
    if location and isinstance(value, dict) and location[0] in value:
        key = location[0]
        return {**value, key: _repaired(value[key], location[1:])}
    if location and isinstance(value, list | tuple) and isinstance(location[0], int):
        index = location[0]
        return type(value)([*value[:index], _repaired(value[index], location[1:]), *value[index + 1 :]])
    if isinstance(value, float):
        return int(value)
    return tuple(value) if isinstance(value, list) else value


def _message(owner: Owner, fault: ErrorDetails, given: dict[str, Any], sources: dict[str, str]) -> str:
    location = fault["loc"]
    raised = fault.get("ctx", {}).get("error")
    if not location:
        return f"{owner.label}: {raised or fault['msg']}"
    key = str(location[0])
    dotted = owner.prefix + key
    expected = f"expected {expectation(owner.model.model_fields[key]) or fault['msg']}"
    if key not in given:
        return f"{dotted}: missing, but {owner.label} needs it: {expected}"
    if raised is not None:
        expected = str(raised)
    elif fault["type"].endswith("_type") and len(location) == 1:
        expected += f", not {kind_of(given[key])}"
    return f"{dotted} = {_shown(given[key])} ({sources[dotted]}): {expected}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _oversized(value: Any) -> bool:
    """Whether there is a finite number above ``LARGEST`` in it."""
    if isinstance(value, dict):
        return any(map(_oversized, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_oversized, value))
    # An integer may be too large for isfinite, which makes it a float.
    return isinstance(value, int | float) and abs(value) > LARGEST and abs(value) != math.inf


def _belongs(dotted: str, prefix: str, merged: Layer, parts: Mapping[str, str]) -> str:
    """``"belongs to mixer 'qmix'; this run has mixer: null"``; empty when no registered part takes the key."""
    key = dotted.removeprefix(prefix)
    takers: dict[str, list[str]] = {}
    for selector, target in parts.items():
        if _prefix(selector) == prefix:
            names = sorted(name for name, model in _all_models(target) if key in model.model_fields)
            takers |= {selector: names} if names else {}
    if not takers:
        return ""
    homes = " and ".join(f"{kind} {', '.join(map(repr, names))}" for kind, names in takers.items())
    now = ", ".join(f"{kind}: {_yaml_word(merged.values.get(kind))}" for kind in takers)
    return f"belongs to {homes}; this run has {now}"


def _all_models(target: str) -> Iterator[tuple[str, type[Options]]]:
    """The options of every entry of a registry; those whose optional package is missing are passed over."""
    try:
        registry = _registry(target)
    except ImportError:
        return
    for name in registry:
        model = _model_of(registry, name)
        if model is not None:
            yield name, model


def _model_of(registry: Registry, name: str) -> type[Options] | None:
    try:
        return registry.options(name)
    except (UserError, ImportError):
        return None


def _yaml_word(value: Any) -> str:
    return "null" if value is None else repr(value)


def _nearest(dotted: str, prefix: str, accepted: set[str]) -> str:
    """Compares the last words, so that a key in the wrong place finds its home; the key's own place goes first."""
    ordered = sorted(accepted, key=lambda key: (key.startswith(ENV_PREFIX) == (prefix == ENV_PREFIX), key))
    homes = {key.removeprefix(ENV_PREFIX).casefold(): key for key in ordered}
    near = difflib.get_close_matches(dotted.removeprefix(prefix).casefold(), homes, n=1, cutoff=0.6)
    return f"; did you mean {homes[near[0]]!r}?" if near else "; print_config lists all keys"
