"""Files that are either whole or absent: written beside their final name, synced, renamed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes JSON so that ``path`` holds the old text or the new one, never a part.

    Args:
        path: the final name; its folder exists.
        value: plain JSON values; NaN and infinities are written as Python's ``NaN`` and ``Infinity``.

    Raises:
        TypeError: ``value`` holds something that is not JSON.
        OSError: the disk refused; ``path`` is unchanged and nothing is left beside it.
    """
    # The whole text at once, with the C encoder: no other thread can change the lists halfway.
    write_text_atomic(path, json.dumps(value, indent=2) + "\n")


def write_text_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Writes text, whole or in pieces, so that ``path`` holds the old text or the new one, never a part.

    Raises:
        OSError: the disk refused; ``path`` is unchanged and nothing is left beside it.
    """
    temporary = temporary_sibling(path)
    try:
        with temporary.open("wb") as file:
            for piece in (text,) if isinstance(text, str) else text:
                file.write(piece.encode())
            file.flush()
            sync_file(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_sibling(path: Path) -> Path:
    """A fresh hidden name in the folder of ``path``: on the same file system, so that a rename is atomic."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def sync_file(descriptor: int) -> None:
    """Forces a file's content to the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries (creations, renames) to the disk, where the system can."""
    with contextlib.suppress(OSError):  # some network file systems and Windows cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _HashingFile:
    """A write-only file that hashes what passes, so that damage between here and the disk is seen."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self.file.write(view)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        self.file.flush()


def write_hashed(path: Path, fill: Callable[[Any], Any]) -> dict[str, int | str]:
    """Writes and syncs a file.

    Args:
        path: a new file.
        fill: gets an object with ``write`` and ``flush``.

    Returns:
        ``{"size": bytes, "sha256": hex}`` of what was handed over, not of what a faulty disk kept.
    """
    with path.open("wb") as file:
        hashing = _HashingFile(file)
        try:
            fill(hashing)
        except RuntimeError:
            if hashing.error is not None:  # torch reports a full disk as a broken archive
                raise hashing.error from None
            raise
        file.flush()
        sync_file(file.fileno())
    return {"size": hashing.size, "sha256": hashing.digest.hexdigest()}


def sha256_of(file: BinaryIO) -> str:
    """Hex SHA-256 of the rest of a binary file."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def backup_of(folder: Path) -> Path:
    """Where :func:`replace_folder` keeps the old folder for a moment when it cannot swap names."""
    return folder.with_name(f".{folder.name}.previous")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers of ``folder`` left beside it, unless it is the only copy."""
    prefix = f".{folder.name}.tmp-"
    for entry in folder.parent.iterdir():
        if entry.name.startswith(prefix):
            shutil.rmtree(entry, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(backup_of(folder), ignore_errors=True)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Gives a complete folder its final name; one that had the name before ends under ``temporary`` or is removed.

    Raises:
        OSError: the system refused; ``folder`` is as before.
    """
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchange(temporary, folder):
        # Between the two renames only the backup exists: readers fall back on it.
        folder.rename(backup_of(folder))
        try:
            temporary.rename(folder)
        except OSError:
            backup_of(folder).rename(folder)
            raise
    sync_folder(folder.parent)
    shutil.rmtree(backup_of(folder), ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step, where system and file system can (Linux)."""
    at_fdcwd, rename_exchange = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return rename(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0
