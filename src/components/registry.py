"""Names to parts: every runner, controller, learner, module and environment is found through a registry."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.errors import UserError


class Options(BaseModel):
    """Base of every part's options: frozen, unknown keys and non-finite numbers refused.

    A field's ``description`` is one line with its unit; it is what ``print_config`` shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class NoOptions(Options):
    """The options of a part that has none."""


@dataclass(frozen=True)
class Entry:
    """Where a part lives; imported when it is first asked for, so that a part costs only those who use it."""

    target: str | Callable[..., Any]
    options: str | type[Options]
    package: str | None


class Registry(Mapping[str, Any]):
    """Name -> part, with lazy import and an error that names the nearest entries.

    Args:
        kind: what the entries are, as it reads in a message ("learner", "environment").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(
        self,
        name: str,
        target: str | Callable[..., Any],
        options: str | type[Options] = NoOptions,
        package: str | None = None,
    ) -> None:
        """Registers a part.

        Args:
            name: how the configuration calls it.
            target: the class or function, or ``"module:attribute"`` to import it only when used.
            options: its options model, or ``"module:attribute"``.
            package: the optional package that it needs, named in the message when it is missing.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice: {self._entries[name].target} and {target}")
        self._entries[name] = Entry(target, options, package)

    def register(self, name: str, options: type[Options] = NoOptions) -> Callable[[Any], Any]:
        """Decorator form of :meth:`add`, for plugins."""

        def decorate(part: Any) -> Any:
            self.add(name, part, options)
            return part

        return decorate

    def __getitem__(self, name: str) -> Any:
        return self._load(self._entry(name).target, name)

    def options(self, name: str) -> type[Options]:
        """The options model of an entry."""
        model = self._load(self._entry(name).options, name)
        return model

    def __contains__(self, name: object) -> bool:
        # Mapping's own would import the part, and a missing name would raise.
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def _load(self, target: str | Callable[..., Any], name: str) -> Any:
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            package = self._entries[name].package
            if package is None or not (error.name or "").startswith(package.split(">")[0].split("=")[0]):
                raise
            raise UserError(
                f"{self.kind} {name!r} needs the package {package!r}, which is not installed: pip install {package}"
            ) from error


def did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """``"; did you mean 'x'? Known: ..."`` for messages about a word that is not among ``known``."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names)}"
