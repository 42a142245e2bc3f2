"""The layers of a configuration: default file, environment file, algorithm file, command line; merged key by key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from components.errors import UserError
from components.registry import did_you_mean
from components.yaml_loader import load_yaml, parse_value

CONFIG_ROOT = Path(__file__).resolve().parents[2] / "config"
COMMAND_LINE = "command line"
# Key of a file in config/algs or config/envs: the file of the same folder whose values it changes.
BASE = "base"
# Key of a file in config/envs: algorithm -> another file of config/algs, with the values that it needs there.
VARIANTS = "variants"

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class Layer:
    """Values and where each came from.

    Attributes:
        values: nested mapping.
        sources: dotted key, of mappings too -> "config/algs/qmix.yaml:7" or "command line".
    """

    values: dict[str, Any]
    sources: dict[str, str]


Read = TypeVar("Read")


def algorithm_names(root: Path = CONFIG_ROOT) -> list[str]:
    """The values that ``--config`` takes: the files of ``config/algs``."""
    return _names(root / "algs")


def environment_names(root: Path = CONFIG_ROOT) -> list[str]:
    """The values that ``--env-config`` takes: the files of ``config/envs``."""
    return _names(root / "envs")


def read_layers(config: str, env_config: str, overrides: Sequence[str | Layer], root: Path) -> Layer:
    """Reads and merges all layers; a later one wins, mappings merge key by key.

    Args:
        config: name of a file in ``config/algs``.
        env_config: name of a file in ``config/envs``.
        overrides: ``key=value`` texts, or layers that know where their values stand; of two for one key the last wins.
        root: the configuration folder.

    Raises:
        UserError: unknown name, unreadable file, malformed override; all of them, one line each.
    """
    errors: list[str] = []
    nothing = Layer({}, {})
    nowhere: tuple[Layer, dict[str, str]] = (nothing, {})
    environment, variants = _attempt(partial(_environment, env_config, root), errors, nowhere)
    reads = [
        partial(default_layer, root),
        partial(_named_layer, "--config", "algorithm", config, root / "algs", variants),
        *(partial(_override, given) for given in overrides),
    ]
    defaults, *others = [_attempt(read, errors, nothing) for read in reads]
    if errors:
        raise UserError("\n".join(sorted(set(errors))))
    return merge([defaults, environment, *others])


def _environment(name: str, root: Path) -> tuple[Layer, dict[str, str]]:
    """An environment's layer without its key ``variants``, and what that says.

    Raises:
        UserError: unknown name, unreadable file, variants that are no files of config/algs.
    """
    layer = _named_layer("--env-config", "environment", name, root / "envs", {})
    given, known = layer.values.get(VARIANTS, {}), algorithm_names(root)
    where = f"{layer.sources.get(VARIANTS)}: {VARIANTS}"
    if not isinstance(given, dict):
        raise UserError(f"{where}: expected a mapping from files of config/algs to files of config/algs")
    for algorithm in (*given, *given.values()):
        if algorithm not in known:
            raise UserError(f"{where}: unknown algorithm {algorithm!r}{did_you_mean(str(algorithm), known)}")
    return _without(VARIANTS, layer), given


def _without(key: str, layer: Layer) -> Layer:
    def keep(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name.split(".")[0] != key}

    return Layer(keep(layer.values), keep(layer.sources))


def default_layer(root: Path = CONFIG_ROOT) -> Layer:
    """The lowest layer: ``default.yaml``."""
    return _file_layer(root / "default.yaml", root)


def _attempt(read: Callable[[], Read], errors: list[str], instead: Read) -> Read:
    try:
        return read()
    except UserError as error:
        errors.append(str(error))
        return instead


def _override(given: str | Layer) -> Layer:
    return given if isinstance(given, Layer) else override_layer(given)


def override_layer(text: str) -> Layer:
    """One ``a.b=1`` of the command line.

    Raises:
        UserError: not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise UserError(f"{text!r} ({COMMAND_LINE}): expected key=value after 'with', such as lr=0.001 or env_args.n=3")
    words = key.split(".")
    nested: Any = parse_value(value)
    for word in reversed(words):
        nested = {word: nested}
    return Layer(nested, {".".join(words[: depth + 1]): COMMAND_LINE for depth in range(len(words))})


def merge(layers: Iterable[Layer]) -> Layer:
    """Merges layers, later over earlier; neither is changed."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        values = _merged(values, layer.values)
        sources |= layer.sources
    return Layer(values, sources)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _named_layer(flag: str, kind: str, name: str, folder: Path, variants: Mapping[str, str]) -> Layer:
    if re.search(r"[/\\\0]", name) or name.startswith("."):
        raise UserError(f"{flag}={name!r}: expected a name, not a path: a file of config/{folder.name} without .yaml")
    known = _names(folder)
    if name not in known:
        raise UserError(f"{flag}: unknown {kind} {name!r}{did_you_mean(name, known)}")
    return _with_base(name, folder, (), variants)


def _with_base(name: str, folder: Path, above: tuple[str, ...], variants: Mapping[str, str]) -> Layer:
    """The file over the one that its key ``base`` names, if any, and under its variant, if it has one.

    Args:
        name: of the file.
        folder: of the files.
        above: the files that lead here.
        variants: file -> the file whose own values change it.
    """
    layer = _file_layer(folder / f"{name}.yaml", folder.parent)
    layers = [_without(BASE, layer)]
    if BASE in layer.values:
        base, where = layer.values[BASE], layer.sources[BASE]
        known = [other for other in _names(folder) if other not in (*above, name)]
        if base not in known:
            raise UserError(
                f"{where}: {BASE} = {base!r}: expected another file of config/{folder.name} without .yaml, one that "
                f"does not build on this one{did_you_mean(str(base), known)}"
            )
        layers.insert(0, _with_base(base, folder, (*above, name), variants))
    if name in variants:
        layers.append(_without(BASE, _file_layer(folder / f"{variants[name]}.yaml", folder.parent)))
    return merge(layers)


def _file_layer(path: Path, root: Path) -> Layer:
    shown = (root.name / path.relative_to(root)).as_posix()
    loaded = load_yaml(path, shown)
    return Layer(loaded.values, {key: f"{shown}:{line}" for key, line in loaded.lines.items()})


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("."))
