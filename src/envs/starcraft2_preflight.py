"""What the ``sc2`` environment needs, looked for before anything starts: one message says what is missing first."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.registry import did_you_mean
from envs.starcraft2_options import Sc2Options

_SCRIPT = "./install_sc2.sh"
_WITHOUT = "Without the game, --env-config=skirmish plays the same maps on our own simulator."
_OLD_PROTOCOL = "Descriptors cannot be created directly"


def check(options: Sc2Options) -> None:
    """Looks for the packages, the game and the map.

    Where the game itself lies is looked at on Linux only; elsewhere pysc2 looks for it when it starts.

    Args:
        options: of them, the map and the version of the game.

    Raises:
        UserError: something is missing; the message names the first such thing, where it was looked for, and the
            command that installs it.
    """
    _check_packages()
    maps = importlib.import_module("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry()
    if options.map_name not in maps:
        raise UserError(
            f"map_name: unknown StarCraft II map {options.map_name!r}{did_you_mean(options.map_name, maps)}"
        )
    if platform.system() == "Linux":
        _check_game(options.map_name, options.game_version)


def _missing(what: str, cure: str = _SCRIPT) -> UserError:
    return UserError(f"StarCraft II cannot be played: {what}. To install it: {cure}. {_WITHOUT}")


def _check_packages() -> None:
    spec = importlib.util.find_spec("smac")
    if spec is None:
        raise _missing("the Python package smac (of SMAC, the multi-agent challenge) is not installed")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any((folder / "env").is_dir() for folder in folders):
        found = folders[0] if folders else spec.origin
        raise _missing(
            f"the package smac in {found} is another program: PyPI's smac (SMAC3) optimises hyper-parameters and has "
            "no smac.env",
            f"pip uninstall smac, then {_SCRIPT}",
        )
    if importlib.util.find_spec("pysc2") is None:
        raise _missing("the Python package pysc2 is not installed")
    _check_protocol()


def _check_protocol() -> None:
    if importlib.util.find_spec("s2clientprotocol") is None:
        raise _missing("the Python package s2clientprotocol, the game's protocol, is not installed")
    try:
        importlib.import_module("s2clientprotocol.sc2api_pb2")
    except TypeError as error:
        if _OLD_PROTOCOL not in str(error):
            raise
        protobuf = importlib.metadata.version("protobuf")
        raise _missing(
            f"the package s2clientprotocol was generated for an older protobuf than the installed {protobuf}",
            "pip install --no-deps --force-reinstall pys2clientprotocol==1.0.2 (or, at half the speed, set "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python)",
        ) from error


def _check_game(map_name: str, game_version: str | None) -> None:
    given = os.environ.get("SC2PATH")
    folder = Path(given or "~/StarCraftII").expanduser()
    said = "which SC2PATH names" if given else "the default, as SC2PATH is not set"
    if not folder.is_dir():
        raise _missing(f"there is no folder {folder}, {said}")
    builds = _builds(folder / "Versions")
    if not builds:
        raise _missing(f"there is no Versions/Base... in {folder}, {said}")
    build = max(builds) if game_version in (None, "latest") else _build_of(str(game_version), builds, folder)
    game = folder / "Versions" / f"Base{build:05d}" / "SC2_x64"
    if not game.is_file():
        raise _missing(f"the game itself is missing: {game}")
    if not os.access(game, os.X_OK):
        raise _missing(f"{game} is not executable", f"chmod +x {game}")
    file = folder / "Maps" / "SMAC_Maps" / f"{map_name}.SC2Map"
    if not file.is_file():
        raise _missing(f"SMAC's map is missing: {file}")


def _builds(versions: Path) -> list[int]:
    names = [path.name.removeprefix("Base") for path in versions.glob("Base*")]
    return [int(name) for name in names if name.isdigit()]


def _build_of(version: str, builds: list[int], folder: Path) -> int:
    """The installed build of a version of the game."""
    known: dict[str, Any] = importlib.import_module("pysc2.run_configs.lib").VERSIONS
    if version not in known:
        raise UserError(f"game_version: unknown version of StarCraft II {version!r}{did_you_mean(version, known)}")
    build: int = known[version].build_version
    if build not in builds:
        named = [name for name, entry in known.items() if entry.build_version in builds]
        have = sorted(named or [f"Base{other:05d}" for other in builds])
        raise _missing(
            f"version {version} (Versions/Base{build:05d}) is not in {folder}, which has {', '.join(have)}",
            f"put it there, or set env_args.game_version=null for the newest installed; {_SCRIPT} installs 4.10",
        )
    return build
