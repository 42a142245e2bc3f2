"""What ``sc2`` says when something is missing; with stand-ins for packages and game, so that neither is needed."""

import os
import resource
import subprocess
import sys
import time

import pytest
from support import sc2_game

from components.errors import UserError
from envs.starcraft2_options import Sc2Options
from envs.starcraft2_preflight import check

PACKAGES = ("smac", "pysc2", "s2clientprotocol")
MAPS = "def get_smac_map_registry(): return {'3m': {}, '8m': {}, '2s3z': {}, 'MMM': {}}\n"
VERSIONS = (
    "from collections import namedtuple\n"
    "Version = namedtuple('Version', 'build_version')\n"
    "VERSIONS = {'4.6.2': Version(69232), '4.10': Version(75689)}\n"
)
FILES = {
    "smac": {"env/starcraft2/maps/smac_maps.py": MAPS},
    "pysc2": {"run_configs/lib.py": VERSIONS},
    "s2clientprotocol": {"sc2api_pb2.py": ""},
}


def write_package(folder, name, files):
    for file, text in files.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for package in path.relative_to(folder).parents:
            if package.name:
                (folder / package / "__init__.py").touch()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Stand-ins of all that is needed: the folder of the packages and that of the game."""
    game = tmp_path / "game"
    sc2_game.install(game)
    packages = tmp_path / "packages"
    for name, files in FILES.items():
        write_package(packages, name, files)
    monkeypatch.setenv("SC2PATH", str(game))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    # Only these: the real ones may be installed as well.
    monkeypatch.setattr("sys.path", [str(packages), *(path for path in sys.path if "site-packages" not in path)])
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    yield packages, game
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def complaint(**options):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        check(Sc2Options(**options))
    assert time.monotonic() - start < 1
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_nothing_is_said_when_all_is_there(installed):
    start = time.monotonic()
    check(Sc2Options(map_name="8m", game_version="4.10"))
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package(installed, name):
    remove(installed[0] / name)
    text = complaint()
    assert f"package {name}" in text
    assert "./install_sc2.sh" in text
    assert "--env-config=skirmish" in text


def test_smac_of_pypi_is_another_program(installed):
    packages, _ = installed
    remove(packages / "smac")
    write_package(packages, "smac", {"facade/hyperparameter_facade.py": ""})
    text = complaint()
    assert "another program" in text
    assert str(packages / "smac") in text
    assert "pip uninstall smac" in text


def test_a_protocol_that_protobuf_does_not_read(installed, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.33.6")
    (installed[0] / "s2clientprotocol/sc2api_pb2.py").write_text(
        "raise TypeError('Descriptors cannot be created directly.')\n"
    )
    text = complaint()
    assert "older protobuf than the installed 6.33.6" in text
    assert "pys2clientprotocol" in text
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python" in text


def test_another_fault_of_the_protocol_is_not_hidden(installed):
    (installed[0] / "s2clientprotocol/sc2api_pb2.py").write_text("raise TypeError('something else')\n")
    with pytest.raises(TypeError, match="something else"):
        check(Sc2Options())


def test_an_unknown_map(installed):
    assert "did you mean '2s3z'" in complaint(map_name="2s3x")


def test_no_folder_where_SC2PATH_says(installed, monkeypatch, tmp_path):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    text = complaint()
    assert f"{tmp_path / 'nowhere'}, which SC2PATH names" in text
    assert "./install_sc2.sh" in text


def test_no_folder_at_the_default_place(installed, monkeypatch, tmp_path):
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path / 'StarCraftII'}, the default, as SC2PATH is not set" in complaint()


def test_no_versions(installed):
    remove(installed[1] / "Versions")
    assert "there is no Versions/Base..." in complaint()


def test_no_executable(installed):
    game = installed[1] / "Versions" / sc2_game.BUILD / "SC2_x64"
    game.chmod(0o644)
    if sys.platform != "win32":
        assert f"chmod +x {game}" in complaint()
    game.unlink()
    assert f"the game itself is missing: {game}" in complaint()


def test_a_version_that_is_not_installed(installed):
    text = complaint(game_version="4.6.2")
    assert "Base69232" in text
    assert "which has 4.10" in text


def test_an_unknown_version(installed):
    assert "unknown version of StarCraft II '4.11'" in complaint(game_version="4.11")


def test_no_map(installed):
    file = installed[1] / "Maps/SMAC_Maps/3m.SC2Map"
    file.unlink()
    assert str(file) in complaint()


def test_grids_and_broken_moves():
    with pytest.raises(ValueError, match="whole number"):
        Sc2Options(obs_pathing_grid=True, move_amount=1.5)


@pytest.mark.parametrize("runner", [["runner=episode"], ["runner=parallel", "n_workers=8"]])
def test_the_command_says_it_within_seconds_and_starts_nothing(tmp_path, runner):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [sys.executable, "src/main.py", "--config=lpmarl", "--env-config=sc2", "with", *runner],
        cwd=sc2_game.ROOT,
        env=os.environ | {"SC2PATH": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.returncode == 2
    assert "error: StarCraft II cannot be played: " in found.stderr
    assert "--env-config=skirmish" in found.stderr
    assert "Traceback" not in found.stderr
    # Of the processor, which is not the clock's on a busy machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
