"""install_sc2.sh with small archives from loopback: what it installs, what it refuses, what a killed run leaves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support.local_archives import (
    BINARY,
    DATA,
    GAME,
    MAPS,
    Server,
    serve,
    tools_folder,
    write_encrypted_zip,
    write_script,
    write_zip,
)

SCRIPT = Path(__file__).resolve().parents[2] / "install_sc2.sh"
NEXT = "python src/main.py --config=lpmarl --env-config=sc2 with env_args.map_name=3m"
GAME_PATH, MAPS_PATH = "/SC2.4.10.zip", "/SMAC_Maps.zip"

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "unzip", "flock", "sha256sum", "curl")),
    reason="install_sc2.sh needs bash, unzip, flock, sha256sum and curl",
)


@dataclass
class Machine:
    """A home folder, two archives in it, and a server that has the same two."""

    home: Path
    server: Server
    path: str

    @property
    def target(self) -> Path:
        return self.home / "StarCraftII"

    @property
    def work(self) -> Path:
        return self.home / "StarCraftII.install"

    @property
    def game_archive(self) -> Path:
        return self.home / "game.zip"

    @property
    def maps_archive(self) -> Path:
        return self.home / "maps.zip"

    @property
    def files(self) -> tuple[str, str]:
        return (f"--game-archive={self.game_archive}", f"--maps-archive={self.maps_archive}")

    def command(self, *arguments: str) -> list[str]:
        return [shutil.which("bash") or "bash", str(SCRIPT), "--no-python", *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        urls = {
            "LPMARL_SC2_URL": self.server.url + GAME_PATH,
            "LPMARL_SMAC_MAPS_URL": self.server.url + MAPS_PATH,
        }
        return {"HOME": str(self.home), "PATH": self.path, "LC_ALL": "C.UTF-8", **urls, **variables}

    def install(self, *arguments: str, eula: bool = True, **variables: str) -> tuple[int, str]:
        """The exit code and all messages."""
        done = subprocess.run(
            self.command(*(["--accept-eula"] if eula else []), *arguments),
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same in a process group of its own."""
        command = self.command("--accept-eula", *arguments)
        quiet = subprocess.DEVNULL
        # Tests that run in the background ignore SIGINT, and bash cannot trap what it was started to ignore.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            command, env=self.environment(), stdin=quiet, stderr=quiet, start_new_session=True, preexec_fn=heard
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    home = tmp_path / "home"
    home.mkdir()
    game = write_zip(home / "game.zip", GAME)
    maps = write_zip(home / "maps.zip", MAPS)
    server = Server({GAME_PATH: game.read_bytes(), MAPS_PATH: maps.read_bytes()})
    with serve(server):
        yield Machine(home, server, os.environ["PATH"])


def assert_installed(target: Path) -> None:
    for name, content in GAME.items():
        path = target.parent / target.name / Path(name).relative_to("StarCraftII")
        assert path.is_dir() if name.endswith("/") else path.read_bytes() == content
    assert os.access(target / Path(BINARY).relative_to("StarCraftII"), os.X_OK)
    maps = target / "Maps" / "SMAC_Maps"
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == {
        Path(name).name: content for name, content in MAPS.items()
    }
    assert_nothing_unfinished(target.parent)


def assert_nothing_installed(machine: Machine) -> None:
    assert not machine.target.exists()
    assert_nothing_unfinished(machine.home)


def assert_nothing_unfinished(home: Path) -> None:
    assert [path for path in home.rglob("*") if "unpacking" in path.name] == []


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_fresh_installation_by_download(machine: Machine) -> None:
    code, messages = machine.install()
    assert code == 0, messages
    assert_installed(machine.target)
    assert f"installed the game: {machine.target}\n" in messages
    assert f"installed 2 maps: {machine.target}/Maps/SMAC_Maps\n" in messages
    assert messages.splitlines()[-1].endswith(NEXT)
    assert "export SC2PATH" not in messages
    # What was downloaded is removed; its size and hash stay.
    assert {path.name for path in machine.work.iterdir()} == {"lock", "SC2.4.10.zip.sha256", "SMAC_Maps.zip.sha256"}
    size = machine.game_archive.stat().st_size
    assert (machine.work / "SC2.4.10.zip.sha256").read_text() == (
        f"# bytes {size}\n{sha256(machine.game_archive)}  SC2.4.10.zip\n"
    )
    assert f"SC2.4.10.zip has the SHA-256 {sha256(machine.game_archive)}. There is nothing to compare it" in messages


@pytest.mark.skipif(shutil.which("zip") is None, reason="only the program zip writes archives with a pass phrase")
def test_the_pass_phrase_opens_the_game(machine: Machine) -> None:
    machine.game_archive.unlink()
    write_encrypted_zip(machine.game_archive, GAME)
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert_installed(machine.target)


@pytest.mark.skipif(shutil.which("zip") is None, reason="only the program zip writes archives with a pass phrase")
def test_another_pass_phrase_is_refused(machine: Machine) -> None:
    machine.game_archive.unlink()
    write_encrypted_zip(machine.game_archive, GAME, "another")
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert "cannot be unpacked: it is damaged or has another pass phrase" in messages
    assert_nothing_installed(machine)


def test_what_is_there_is_left_alone(machine: Machine) -> None:
    assert machine.install(*machine.files)[0] == 0
    (machine.target / "mine").write_text("kept")
    # No archive, no server, no agreement and no unzip are needed any more.
    machine.server.files.clear()
    machine.server.requests.clear()
    code, messages = machine.install(eula=False)
    assert code == 0, messages
    assert f"the game is there: {machine.target}\n" in messages
    assert f"the maps are there: {machine.target}/Maps/SMAC_Maps\n" in messages
    assert messages.splitlines()[-1].endswith(NEXT)
    assert machine.server.requests == []
    assert (machine.target / "mine").read_text() == "kept"


def test_offline_with_both_files(machine: Machine, tmp_path: Path) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=("curl", "wget")))
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert_installed(machine.target)
    assert machine.server.requests == []
    # The user's own files stay.
    assert machine.game_archive.exists()
    assert machine.maps_archive.exists()


def test_only_the_maps_are_missing(machine: Machine) -> None:
    assert machine.install(*machine.files)[0] == 0
    shutil.rmtree(machine.target / "Maps" / "SMAC_Maps")
    (machine.target / "Maps" / "Mine").mkdir()
    machine.server.requests.clear()
    # The maps are under no licence that has to be agreed to.
    code, messages = machine.install(eula=False)
    assert code == 0, messages
    assert_installed(machine.target)
    assert machine.server.downloads(GAME_PATH) == []
    assert (machine.target / "Maps" / "Mine").is_dir()


def test_the_maps_may_lie_at_the_top_of_their_archive(machine: Machine) -> None:
    write_zip(machine.maps_archive, {Path(name).name: content for name, content in MAPS.items()})
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert_installed(machine.target)


def test_another_version_is_used_and_told(machine: Machine) -> None:
    binary = machine.target / "Versions" / "Base69232" / "SC2_x64"
    binary.parent.mkdir(parents=True)
    binary.touch()
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert "note: its version is Base69232, not 4.10 (Base75689); results of two versions do not compare" in messages


def test_sc2path_elsewhere(machine: Machine) -> None:
    elsewhere = machine.home / "my games" / "sc2"
    elsewhere.mkdir(parents=True)
    code, messages = machine.install(*machine.files, SC2PATH=str(elsewhere))
    assert code == 0, messages
    assert_installed(elsewhere)
    assert not machine.target.exists()
    assert f"export SC2PATH={elsewhere}\n" in messages


def test_sc2path_may_be_a_link(machine: Machine) -> None:
    machine.target.symlink_to(machine.home / "disk" / "sc2")
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert machine.target.is_symlink()
    assert_installed(machine.home / "disk" / "sc2")


@pytest.mark.parametrize("without", ["curl", "wget"])
def test_a_cut_connection_goes_on_within_a_run(machine: Machine, tmp_path: Path, without: str) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=(without,)))
    machine.server.cuts = [50_000, 20_000]
    code, messages = machine.install()
    assert code == 0, messages
    assert_installed(machine.target)
    starts = machine.server.downloads(GAME_PATH)
    assert starts == [0, 50_000, 70_000]
    assert "the connection ended after 70000 bytes: trying again" in messages


def test_the_next_run_goes_on_where_a_dead_server_stopped(machine: Machine) -> None:
    machine.server.cuts = [50_000, 0, 0, 0]
    code, messages = machine.install()
    assert code == 1
    assert "could not be downloaded; 50000 bytes are there, and the next run goes on after them" in messages
    assert "--game-archive=FILE" in messages
    assert_nothing_installed(machine)
    machine.server.requests.clear()
    code, messages = machine.install()
    assert code == 0, messages
    assert "going on after the first 50000 bytes" in messages
    assert machine.server.downloads(GAME_PATH) == [50_000]
    assert_installed(machine.target)


def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(machine: Machine) -> None:
    machine.server.cuts = [50_000]
    machine.server.ranges = False
    code, messages = machine.install()
    assert code == 0, messages
    assert_installed(machine.target)


@pytest.mark.parametrize("without", ["curl", "wget"])
def test_a_download_that_was_killed_at_its_very_end(machine: Machine, tmp_path: Path, without: str) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=(without,)))
    machine.work.mkdir()
    (machine.work / "SC2.4.10.zip.part").write_bytes(machine.game_archive.read_bytes())
    code, messages = machine.install()
    assert code == 0, messages
    assert_installed(machine.target)


def test_the_rest_of_a_larger_file_is_thrown_away(machine: Machine) -> None:
    machine.work.mkdir()
    (machine.work / "SC2.4.10.zip.part").write_bytes(machine.game_archive.read_bytes() + b"more")
    code, messages = machine.install()
    assert code == 2
    size = machine.game_archive.stat().st_size
    assert f"gave {size + 4} bytes instead of {size}; they are removed, run this again" in messages
    assert_nothing_installed(machine)
    assert machine.install()[0] == 0
    assert_installed(machine.target)


@pytest.mark.parametrize("without", ["curl", "wget"])
def test_a_wrong_address(machine: Machine, tmp_path: Path, without: str) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=(without,)))
    code, messages = machine.install(LPMARL_SC2_URL=f"{machine.server.url}/absent.zip")
    assert code == 1
    assert f"error: {machine.server.url}/absent.zip could not be downloaded" in messages
    assert machine.server.downloads("/absent.zip") == [0]
    assert_nothing_installed(machine)


def test_a_truncated_file(machine: Machine) -> None:
    machine.game_archive.write_bytes(machine.game_archive.read_bytes()[:100_000])
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert f"error: {machine.game_archive} is truncated, or no zip archive (100000 bytes)\n" in messages
    assert_nothing_installed(machine)
    assert machine.game_archive.exists()


def test_a_truncated_download_is_put_aside_and_fetched_again(machine: Machine) -> None:
    # The server tells no length, so only the archive itself shows that its end is missing.
    whole = machine.server.files[GAME_PATH]
    machine.server.tells_size = False
    machine.server.files[GAME_PATH] = whole[:100_000]
    code, messages = machine.install()
    assert code == 2
    assert "is truncated, or no zip archive (100000 bytes)" in messages
    assert "SC2.4.10.zip.refused; run this again to download it anew" in messages
    assert_nothing_installed(machine)
    machine.server.files[GAME_PATH] = whole
    code, messages = machine.install()
    assert code == 0, messages
    assert_installed(machine.target)
    assert not (machine.work / "SC2.4.10.zip.refused").exists()


def test_damage_within_the_archive_is_never_recorded(machine: Machine) -> None:
    content = bytearray(machine.game_archive.read_bytes())
    content[100_000] ^= 1
    machine.game_archive.write_bytes(content)
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert f"error: {machine.game_archive} cannot be unpacked: it is damaged" in messages
    assert_nothing_installed(machine)
    assert not machine.game_archive.with_name("game.zip.sha256").exists()


def _again_with(machine: Machine, content: bytes) -> tuple[int, str]:
    """Installs, removes the game and installs again from a changed archive."""
    assert machine.install(*machine.files)[0] == 0
    shutil.rmtree(machine.target)
    machine.game_archive.write_bytes(content)
    return machine.install(*machine.files)


def test_another_hash_than_at_the_first_run(machine: Machine) -> None:
    first = sha256(machine.game_archive)
    tampered = write_zip(machine.home / "tampered.zip", {**GAME, BINARY: b"#!/bin/sh\necho the gami\n"})
    content = tampered.read_bytes().ljust(machine.game_archive.stat().st_size, b"\0")
    code, messages = _again_with(machine, content[: machine.game_archive.stat().st_size])
    assert code == 2
    assert f"has the SHA-256 {sha256(machine.game_archive)}; an earlier run recorded {first} in" in messages
    assert_nothing_installed(machine)


def test_another_size_than_at_the_first_run(machine: Machine) -> None:
    bigger = write_zip(machine.home / "bigger.zip", {**GAME, "StarCraftII/more": b"x"})
    code, messages = _again_with(machine, bigger.read_bytes())
    assert code == 2
    assert f"has {bigger.stat().st_size} bytes; an earlier run recorded " in messages
    assert_nothing_installed(machine)


def test_a_changed_mirror_is_noticed(machine: Machine) -> None:
    assert machine.install()[0] == 0
    shutil.rmtree(machine.target)
    changed = write_zip(machine.home / "changed.zip", {**GAME, "StarCraftII/SC2Data/data.000": DATA[::-1]})
    machine.server.files[GAME_PATH] = changed.read_bytes()
    code, messages = machine.install()
    assert code == 2
    assert "an earlier run recorded" in messages
    assert_nothing_installed(machine)


@pytest.mark.parametrize(("option", "name"), [("--sha256-game", "game.zip"), ("--sha256-maps", "maps.zip")])
def test_a_given_hash_is_enforced(machine: Machine, option: str, name: str) -> None:
    right = sha256(machine.home / name)
    code, messages = machine.install(*machine.files, f"{option}={'0' * 64}")
    assert code == 2
    assert f"{name} has the SHA-256 {right}; {option} asks for {'0' * 64}\n" in messages
    assert not (machine.target / "Maps" / "SMAC_Maps").exists()
    assert_nothing_unfinished(machine.home)
    code, messages = machine.install(*machine.files, f"{option}={right.upper()}")
    assert code == 0, messages
    assert_installed(machine.target)


@pytest.mark.parametrize(
    "member",
    ["/etc/evil", "../evil", "StarCraftII/../../evil", "StarCraftII/..", "C:/evil", "..\\evil", "\\evil"],
)
@pytest.mark.parametrize("which", ["game", "maps"])
def test_a_member_that_leads_out(machine: Machine, member: str, which: str) -> None:
    archive, members = (machine.game_archive, GAME) if which == "game" else (machine.maps_archive, MAPS)
    write_zip(archive, {**members, member: b"evil"})
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert f"{archive} has a member that leads out of its folder: " in messages
    assert list(machine.home.rglob("evil")) == []
    assert not (machine.target / "Maps" / "SMAC_Maps").exists()
    assert_nothing_unfinished(machine.home)


@pytest.mark.parametrize("link", ["/etc", "../../../..", "../../StarCraftII.install/lock/.."])
def test_a_link_that_leads_out(machine: Machine, link: str) -> None:
    write_zip(machine.game_archive, GAME, {"StarCraftII/link": link})
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert "has a link that leads out of its folder: StarCraftII/link\n" in messages
    assert_nothing_installed(machine)


def test_a_link_within_the_game(machine: Machine) -> None:
    write_zip(machine.game_archive, GAME, {"StarCraftII/link": "SC2Data/data.000"})
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert (machine.target / "link").read_bytes() == DATA


@pytest.mark.parametrize(
    ("which", "members", "message"),
    [
        ("game", {"StarCraftII/Versions/Base69232/SC2_x64": b""}, "is not StarCraft II 4.10 for Linux"),
        ("maps", {"SMAC_Maps/readme": b"x"}, "does not hold SMAC's maps"),
    ],
)
def test_the_archive_of_something_else(machine: Machine, which: str, members: dict[str, bytes], message: str) -> None:
    write_zip(machine.home / f"{which}.zip", members)
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert message in messages
    assert machine.target.exists() == (which == "maps")
    assert not (machine.target / "Maps" / "SMAC_Maps").exists()
    assert_nothing_unfinished(machine.home)


def _df(kilobytes: int) -> str:
    return f"echo Filesystem 1024-blocks Used Available; echo /dev/x 1 1 {kilobytes} 1% /"


def test_no_room_for_the_download(machine: Machine, tmp_path: Path) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", df=_df(300)))
    code, messages = machine.install()
    assert code == 1
    assert "no room for SC2.4.10.zip and what it holds" in messages
    assert "has 307200 bytes free, 40" in messages
    assert machine.server.downloads(GAME_PATH) == []
    assert_nothing_installed(machine)


def test_no_room_for_what_the_archive_holds(machine: Machine, tmp_path: Path) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", df=_df(100)))
    code, messages = machine.install(*machine.files)
    assert code == 1
    needed = sum(map(len, GAME.values()))
    assert f"no room for what game.zip holds: {machine.work} has 102400 bytes free, {needed} bytes are" in messages
    assert_nothing_installed(machine)


def test_where_the_server_tells_no_size_the_games_is_assumed(machine: Machine, tmp_path: Path) -> None:
    machine.server.tells_size = False
    machine.path = str(tools_folder(tmp_path / "bin", df=_df(5_000_000)))
    code, messages = machine.install()
    assert code == 1
    assert "has 5.1 GB free, 8.6 GB are needed" in messages
    assert_nothing_installed(machine)


def test_without_agreement_nothing_is_installed(machine: Machine) -> None:
    code, messages = machine.install(eula=False)
    assert code == 2
    assert "Read it: https://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html" in messages
    assert "run this again with --accept-eula" in messages
    assert machine.server.requests == []
    assert list(machine.home.glob("StarCraftII*")) == []


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("no", 2), ("y", 2)])
def test_on_a_terminal_it_asks(machine: Machine, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            machine.command(*machine.files),
            env=machine.environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == code, done.stderr
    assert "do you agree to it? Type yes or no:" in done.stderr
    assert machine.target.exists() == (code == 0)
    assert ("without your agreement the game is not installed" in done.stderr) == (code == 2)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("StarCraftII/notes.txt", "StarCraftII is not empty, but holds no game (Versions/Base*/SC2_x64)"),
        ("StarCraftII/Versions/Base75689/other", "StarCraftII is not empty, but holds no game"),
        ("StarCraftII", "StarCraftII is not empty, but holds no game"),
    ],
)
def test_something_else_at_sc2path(machine: Machine, place: str, message: str) -> None:
    file = machine.home / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert message in messages
    assert file.read_text() == "mine"
    assert not machine.work.exists()


def test_something_else_where_the_maps_go(machine: Machine) -> None:
    assert machine.install(*machine.files)[0] == 0
    (machine.target / "Maps" / "SMAC_Maps" / "3m.SC2Map").unlink()
    code, messages = machine.install(*machine.files)
    assert code == 2
    assert "SMAC_Maps is not empty, but holds no 3m.SC2Map. Move it away" in messages
    assert (machine.target / "Maps" / "SMAC_Maps" / "8m.SC2Map").exists()


@pytest.mark.parametrize("tool", ["unzip", "sha256sum", "flock"])
def test_a_missing_tool(machine: Machine, tmp_path: Path, tool: str) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=(tool,)))
    code, messages = machine.install(*machine.files)
    assert code == 1
    assert f"error: missing: {tool}. On Debian and Ubuntu: apt install unzip coreutils util-linux curl\n" in messages
    assert_nothing_installed(machine)


def test_neither_curl_nor_wget(machine: Machine, tmp_path: Path) -> None:
    machine.path = str(tools_folder(tmp_path / "bin", without=("curl", "wget")))
    code, messages = machine.install(machine.files[0])
    assert code == 1
    assert "error: missing: curl." in messages


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--accept-eul", "unknown argument '--accept-eul'; --help lists them"),
        ("game.zip", "unknown argument 'game.zip'"),
        ("--game-archive=/absent.zip", "--game-archive=/absent.zip: there is no such file"),
        ("--maps-archive=", "--maps-archive=: there is no such file"),
        ("--sha256-game=12ab", "--sha256-game=12ab: a SHA-256 has 64 hexadecimal digits"),
        ("--only-python", "--no-python and --only-python together leave nothing to do"),
    ],
)
def test_wrong_arguments(machine: Machine, argument: str, message: str) -> None:
    code, messages = machine.install(argument)
    assert code == 2
    assert message in messages
    assert_nothing_installed(machine)


def test_help_names_every_option(machine: Machine) -> None:
    done = subprocess.run(
        machine.command("--help"), env=machine.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    known = {part.split("=")[0].split(")")[0] for part in SCRIPT.read_text().split() if part.startswith("--")}
    options = {"--accept-eula", "--game-archive", "--sha256-maps", "--keep-archives", "--no-python", "--only-python"}
    assert options <= known
    assert all(option in done.stdout for option in options)
    assert "set -euo" not in done.stdout
    assert list(machine.home.glob("StarCraftII*")) == []


def test_archives_are_kept_when_asked_for(machine: Machine) -> None:
    assert machine.install("--keep-archives")[0] == 0
    assert (machine.work / "SC2.4.10.zip").read_bytes() == machine.game_archive.read_bytes()
    shutil.rmtree(machine.target)
    machine.server.requests.clear()
    code, messages = machine.install("--keep-archives")
    assert code == 0, messages
    assert "SC2.4.10.zip, which an earlier run downloaded" in messages
    assert machine.server.requests == []
    assert_installed(machine.target)


# Begins as unzip does, then hangs until it is killed.
_HANGING_UNZIP = """case $1 in -Z*) exec {real} "$@" ;; esac
while [ "$1" != -d ]; do shift; done
mkdir -p "$2/StarCraftII/Versions/Base75689"
echo half >"$2/StarCraftII/Versions/Base75689/SC2_x64"
echo $$ >"$HOME/unzip.pid"
sleep 120"""


def _wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def _unpacking(machine: Machine, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that hangs while it unpacks the game; whatever is left of it is killed at the end."""
    usual = machine.path
    machine.path = str(tools_folder(tmp_path / "bin", unzip=_HANGING_UNZIP.format(real=shutil.which("unzip"))))
    process = machine.start(*machine.files)
    try:
        _wait_for(lambda: (machine.home / "unzip.pid").exists())
        machine.path = usual
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def test_killed_while_unpacking(machine: Machine, tmp_path: Path) -> None:
    with _unpacking(machine, tmp_path) as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
    assert not machine.target.exists()
    assert (machine.work / "unpacking" / BINARY).read_text() == "half\n"
    code, messages = machine.install(*machine.files)
    assert code == 0, messages
    assert_installed(machine.target)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_unpacking(machine: Machine, tmp_path: Path, number: int, code: int) -> None:
    with _unpacking(machine, tmp_path) as process:
        os.killpg(process.pid, number)
        assert process.wait(timeout=20) == code
    assert_nothing_installed(machine)
    assert machine.install(*machine.files)[0] == 0
    assert_installed(machine.target)


def test_an_unzip_that_outlives_its_script_is_waited_for(machine: Machine, tmp_path: Path) -> None:
    with _unpacking(machine, tmp_path) as process:
        process.kill()
        process.wait(timeout=20)
        code, messages = machine.install(*machine.files)
        assert code == 1
        assert f"another install_sc2.sh is at work on {machine.target}, or what a killed one started" in messages
        assert (machine.work / "unpacking" / BINARY).exists()
        os.killpg(process.pid, signal.SIGKILL)
        _wait_for(lambda: machine.install(*machine.files)[0] == 0)
    assert_installed(machine.target)


# Writes down what it is asked to do. Imports work once the last package is there.
_FAKE_PYTHON = """case "$1 $2" in
"-c import"*) echo 3.11 ;;
"-c from"*) [ -e "$0.smac" ] ;;
"-m pip")
    printf '%s\\n' "$*" >>"$0.log"
    case "$*" in *{fails}*) exit 1 ;; *smac*) touch "$0.smac" ;; esac ;;
esac"""


def _only_python(machine: Machine, fails: str = "nothing") -> tuple[int, str, list[str]]:
    python = write_script(machine.home / "python", _FAKE_PYTHON.format(fails=fails))
    done = subprocess.run(
        ["bash", str(SCRIPT), "--only-python"],
        env=machine.environment(LPMARL_PYTHON=str(python)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    log = machine.home / "python.log"
    return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []


def test_the_python_packages(machine: Machine) -> None:
    code, messages, calls = _only_python(machine)
    assert code == 0, messages
    pip = "-m pip install --disable-pip-version-check"
    # The overlay replaces files of s2clientprotocol, so it comes after it; lpmarl's own pins stay.
    assert calls == [
        f"{pip} --constraint {SCRIPT.parent}/requirements.txt pysc2==4.0.0 s2clientprotocol==5.0.17.98310.0",
        f"{pip} --no-deps --force-reinstall pys2clientprotocol==1.0.2",
        f"{pip} --no-deps https://github.com/oxwhirl/smac/archive/d6aab33f76abc3849c50463a8592a84f59a5ef84.zip",
    ]
    assert_nothing_installed(machine)
    # The second run finds them.
    code, messages, again = _only_python(machine)
    assert (code, again) == (0, calls)
    assert "the Python packages are there" in messages


@pytest.mark.parametrize("fails", ["pysc2==", "pys2clientprotocol", "smac/archive"])
def test_a_failing_pip(machine: Machine, fails: str) -> None:
    code, messages, calls = _only_python(machine, fails)
    assert code == 1
    assert "error: pip could not install " in messages
    assert fails in calls[-1]


def test_packages_that_cannot_be_imported(machine: Machine) -> None:
    machine.server.files.clear()
    python = write_script(
        machine.home / "python", 'case "$1 $2" in "-c import"*) echo 3.11 ;; "-c from"*) exit 1 ;; esac'
    )
    done = subprocess.run(
        ["bash", str(SCRIPT), "--only-python"],
        env=machine.environment(LPMARL_PYTHON=str(python)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: the packages are installed, but cannot be imported" in done.stderr
