"""Whether chosen parts fit together, read from the constructors' annotations: no part lists the names of others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from components.errors import UserError
from components.registry import Registry


def check_fit(owner: str, part: type, argument: str, chosen: str, registry: Registry) -> None:
    """Refuses a part whose class is not what the owner's constructor takes.

    Args:
        owner: how the configuration names the owner, "mac = 'basic_mac'".
        part: the owner's class.
        argument: the constructor's argument, which is also the selector's key.
        chosen: the name given for it.
        registry: where that name comes from.

    Raises:
        UserError: names both and what would fit.
    """
    expected = _takes(part, argument)
    if expected is None or _is_a(registry[chosen], expected):
        return
    key = "mac" if argument == "controller" else argument
    raise UserError(f"{key} = {chosen!r} does not fit {owner}; what fits: {_fitting(part, argument, registry)}")


def check_arguments(owner: str, part: type, given: Iterable[str], possible: Mapping[str, Registry]) -> None:
    """Refuses parts that the owner's constructor does not take, and missing ones that it needs.

    Args:
        owner: how the configuration names the owner.
        part: the owner's class.
        given: selectors with a value.
        possible: all selectors that a constructor may take, and where their names come from.

    Raises:
        UserError: names the selector, and what would fit where one is missing.
    """
    parameters = inspect.signature(part).parameters
    for key, registry in possible.items():
        if key in given and key not in parameters:
            raise UserError(f"{owner} takes no {key}: use {key} = null")
        if key not in given and key in parameters and parameters[key].default is inspect.Parameter.empty:
            fitting = _fitting(part, key, registry)
            raise UserError(f"{owner} needs a {key}, but {key} is null; what fits: {fitting}")


def _fitting(part: type, argument: str, registry: Registry) -> str:
    expected = _takes(part, argument)
    return ", ".join(sorted(name for name in registry if expected and _is_a(registry[name], expected))) or "none"


def _takes(part: type, argument: str) -> type | None:
    """The class that an argument is, or that the factory given for it returns."""
    hint = get_type_hints(part.__init__).get(argument)  # type: ignore[misc]
    for choice in (hint, *get_args(hint)):
        if get_origin(choice) is Callable:
            choice = get_args(choice)[-1]
        if isinstance(choice, type) and choice is not type(None):
            return choice
    return None


def _is_a(part: Any, expected: type) -> bool:
    return isinstance(part, type) and issubclass(part, expected)
