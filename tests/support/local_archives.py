"""Small archives that look like Blizzard's and SMAC's, and a server on loopback that can break off in the middle."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BINARY = "StarCraftII/Versions/Base75689/SC2_x64"
PASS_PHRASE = "iagreetotheeula"  # noqa: S105 - published by Blizzard
# Random bytes do not compress, so that an archive can be cut in its middle.
DATA = random.Random(7).randbytes(200_000)  # noqa: S311
GAME = {BINARY: b"#!/bin/sh\necho the game\n", "StarCraftII/SC2Data/data.000": DATA, "StarCraftII/Maps/": b""}
MAPS = {"SMAC_Maps/3m.SC2Map": DATA[:3000], "SMAC_Maps/8m.SC2Map": DATA[:4000]}


def write_zip(path: Path, members: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    """An archive without a pass phrase; unzip takes one all the same.

    Args:
        path: the archive.
        members: content by name; names that end with ``/`` are folders. The game's binary may be executed.
        links: targets of symbolic links by name.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else (0o100644 << 16)
            archive.writestr(info, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    return path


def write_encrypted_zip(path: Path, members: Mapping[str, bytes], pass_phrase: str = PASS_PHRASE) -> Path:
    """The same behind a pass phrase, which zipfile cannot write; needs the program zip."""
    folder = path.with_suffix(".content")
    for name, content in members.items():
        file = folder / name
        if name.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    command = ["zip", "--quiet", "--recurse-paths", "-P", pass_phrase, str(path.absolute()), "."]
    subprocess.run(command, cwd=folder, check=True)
    shutil.rmtree(folder)
    return path


@dataclass
class Server:
    """What is served, how it misbehaves, and what was asked for.

    Args:
        files: content by path.
        cuts: how many bytes each of the next answers sends before its connection ends; then answers are whole.
        ranges: whether a download can go on in its middle.
        tells_size: whether answers say how long they are.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    tells_size: bool = True
    url: str = ""
    requests: list[tuple[str, str, int]] = field(default_factory=list)

    def downloads(self, path: str) -> list[int]:
        """Where each GET of this path began."""
        return [start for method, asked, start in self.requests if (method, asked) == ("GET", path)]


@contextlib.contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Serves on a free port of loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, send: bool) -> None:
            content = server.files.get(self.path)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked and server.ranges else 0
            server.requests.append((self.command, self.path, start))
            if content is None:
                self.send_error(404)
                return
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if server.tells_size:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if send:
                rest = content[start:]
                self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


_TOOLS = (
    "awk basename bash cat chmod curl cut date df dirname env find flock grep head id ls mkdir mv pwd realpath rm "
    "rmdir sed sha256sum sleep stat tail tr uname unzip wc wget"
)


def tools_folder(folder: Path, without: tuple[str, ...] = (), **scripts: str) -> Path:
    """A folder for PATH with links to what the shell scripts use.

    Args:
        folder: is made.
        without: programs that are missing on this machine.
        scripts: shell code of programs that stand in for real ones.
    """
    folder.mkdir()
    for name in _TOOLS.split():
        real = shutil.which(name)
        if real and name not in without and name not in scripts:
            (folder / name).symlink_to(real)
    for name, code in scripts.items():
        write_script(folder / name, code)
    return folder


def write_script(path: Path, code: str) -> Path:
    """An executable bash script."""
    path.write_text(f"#!{shutil.which('bash')}\n{code}\n")
    path.chmod(0o700)
    return path
