"""Checkpoints: a folder of tensors and plain JSON, written atomically, checked by SHA-256, never executed.

tensors.pt     flat dict name -> CPU tensor, read with ``weights_only=True`` and no other way
state.json     the nested state, with references to the tensors
manifest.json  format, version, meta (algorithm, environment, steps, commit), size and SHA-256 of the others
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from components.errors import UserError
from components.files import (
    backup_of,
    remove_leftovers,
    replace_folder,
    sha256_of,
    sync_folder,
    temporary_sibling,
    write_hashed,
)
from components.state_codec import decode_state, encode_state

FORMAT = "lpmarl-checkpoint"
VERSION = 2
MANIFEST, TENSORS, STATE = "manifest.json", "tensors.pt", "state.json"

JSON = Any


class NewerVersion(UserError):
    """A checkpoint that this version cannot know how to read."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the nested state as it was saved, and what the manifest says about it."""

    state: Any
    meta: dict[str, JSON]


def save_checkpoint(folder: Path, state: Any, meta: Mapping[str, JSON]) -> Path:
    """Writes a checkpoint; ``folder`` changes only once the new one is complete and on the disk.

    One process may write a given ``folder`` at a time: leftovers of earlier, killed writers are removed.

    Args:
        folder: where; its parents are created. An existing checkpoint there is replaced.
        state: nested values, see :func:`components.state_codec.encode_state`.
        meta: plain JSON without NaN: what a reader must know before it uses the state.

    Returns:
        ``folder``.

    Raises:
        TypeError: ``state`` or ``meta`` holds what a checkpoint cannot hold, naming the path.
        UserError: the disk refused (full, read-only); an earlier checkpoint there is untouched.
    """
    folder = Path(folder)
    encoded, table = encode_state(state)
    body = {"format": FORMAT, "version": VERSION, "meta": _plain_meta(meta)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary = temporary_sibling(folder)
        temporary.mkdir()
        try:
            files = {
                TENSORS: write_hashed(temporary / TENSORS, lambda file: torch.save(table, file)),
                STATE: write_hashed(temporary / STATE, lambda file: file.write(json.dumps(encoded).encode())),
            }
            manifest = _sealed({**body, "files": files})
            write_hashed(temporary / MANIFEST, lambda file: file.write(json.dumps(manifest, indent=2).encode()))
            sync_folder(temporary)
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"checkpoint {folder} could not be written: {error.strerror or error}; what was there before is untouched"
        ) from error
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads and checks a checkpoint. Tensors come back on the CPU. Nothing in it can run code.

    Raises:
        UserError: no checkpoint there, another or a newer format, a damaged file or a pickle payload.
    """
    folder = _existing(Path(folder))
    manifest = _read_manifest(folder)
    table = _read_checked(folder, TENSORS, manifest, _load_tensors)
    state = _read_checked(folder, STATE, manifest, lambda file: _load_state(file, table))
    return Checkpoint(state, manifest["meta"])


def verify_checkpoint(folder: Path) -> dict[str, JSON]:
    """Checks manifest, sizes and hashes without loading anything.

    Returns:
        The meta data.

    Raises:
        UserError: as :func:`load_checkpoint`.
    """
    folder = _existing(Path(folder))
    manifest = _read_manifest(folder)
    for name in (TENSORS, STATE):
        _read_checked(folder, name, manifest, lambda file: None)
    return manifest["meta"]


def require_same(meta: Mapping[str, JSON], expected: Mapping[str, JSON], keys: Iterable[str]) -> None:
    """Refuses a checkpoint of another algorithm, environment or shape.

    Args:
        meta: the checkpoint's meta data.
        expected: what this run has.
        keys: the keys that must agree; values are compared as JSON, so a tuple equals a list.

    Raises:
        UserError: listing every key that differs, with both values.
    """
    lines = []
    for key in keys:
        theirs, ours = _as_json(meta.get(key)), _as_json(expected.get(key))
        if theirs != ours:
            lines.append(f"  {key}: checkpoint has {json.dumps(theirs)}, this run has {json.dumps(ours)}")
    if lines:
        raise UserError("the checkpoint belongs to another experiment:\n" + "\n".join(lines))


def load_into(part: Any, state: Mapping[str, Any], name: str) -> None:
    """``part.load_state_dict(state)`` with an error that the user can act on.

    Args:
        part: a module, optimizer or any object with ``state_dict`` and ``load_state_dict``.
        state: what its ``state_dict`` returned when saving.
        name: how the message calls the part ("learner.mixer").

    Raises:
        UserError: the state does not fit, with the first entries that differ.
    """
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        differences = _differences(part.state_dict(), state)
        shown = "".join(f"\n  {line}" for line in differences[:3]) or f"\n  {error}"
        more = f"\n  and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(f"the checkpoint does not fit {name} (another configuration?):{shown}{more}") from error


def _plain_meta(meta: Mapping[str, JSON]) -> dict[str, JSON]:
    return {str(key): _plain(key, value) for key, value in meta.items()}


def _plain(key: str, value: JSON) -> JSON:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"checkpoint meta {key!r} is not plain JSON: {error}") from error


def _sealed(body: dict[str, JSON]) -> dict[str, JSON]:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _existing(folder: Path) -> Path:
    if not folder.exists() and backup_of(folder).is_dir():
        return backup_of(folder)
    if not folder.exists():
        raise UserError(f"no checkpoint at {folder}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; a checkpoint is a folder with {MANIFEST}, {STATE} and {TENSORS}")
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is not an lpmarl checkpoint (no {MANIFEST}): it is {_describe(folder)}")
    return folder


def _describe(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    if "agent.th" in names:
        return f"a PyMARL model folder ({', '.join(name for name in names if name.endswith('.th'))})"
    inner = [name for name in names if (folder / name / MANIFEST).is_file()]
    if inner:
        return f"a folder of checkpoints: give one of {', '.join(inner[-5:])}"
    if not names:
        return "empty"
    return f"a folder with {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or truncated: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of an lpmarl checkpoint: it has no format {FORMAT!r}")
    version = manifest.get("version")
    if isinstance(version, int) and version > VERSION:
        raise NewerVersion(
            f"{folder} was written by a newer lpmarl (checkpoint version {version}; this one reads up to {VERSION}): "
            "update lpmarl"
        )
    if isinstance(version, int) and 0 < version < VERSION:
        raise UserError(f"{folder} was written by an early lpmarl (checkpoint version {version}): train anew")
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if version != VERSION or not _is_complete(manifest) or _sealed(body) != manifest:
        raise UserError(f"{path} is damaged: its content does not match its own SHA-256")
    return manifest


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    if not isinstance(files, dict) or not isinstance(manifest.get("meta"), dict) or set(files) != {TENSORS, STATE}:
        return False
    return all(isinstance(facts, dict) and set(facts) == {"size", "sha256"} for facts in files.values())


def _read_checked(folder: Path, name: str, manifest: Mapping[str, Any], read: Callable[[BinaryIO], Any]) -> Any:
    path, facts = folder / name, manifest["files"][name]
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != facts["size"]:
                raise UserError(f"{path} is truncated or changed: {size} bytes, the manifest says {facts['size']}")
            if sha256_of(file) != facts["sha256"]:
                raise UserError(f"{path} is damaged: its SHA-256 does not match the manifest")
            file.seek(0)
            return read(file)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: the checkpoint is incomplete") from error
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}") from error


def _load_tensors(file: BinaryIO) -> dict[str, torch.Tensor]:
    try:
        table = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{file.name} was refused: it holds more than tensors, loading it could run code") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file.name} is not a tensor file: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(value, torch.Tensor) for value in table.values()):
        raise UserError(f"{file.name} is not a flat table of tensors")
    return table


def _load_state(file: BinaryIO, table: Mapping[str, torch.Tensor]) -> Any:
    try:
        return decode_state(json.loads(file.read()), table)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.name} is not an encoded state: {error}") from error


def _as_json(value: JSON) -> JSON:
    return json.loads(json.dumps(value))


def _differences(ours: Any, theirs: Any) -> list[str]:
    mine, saved = _shapes(ours), _shapes(theirs)
    lines = [
        f"{key}: checkpoint has {saved[key]}, this run has {mine[key]}"
        for key in mine
        if saved.get(key, mine[key]) != mine[key]
    ]
    lines += [f"{key}: missing in the checkpoint" for key in mine if key not in saved]
    return lines + [f"{key}: unknown in this run" for key in saved if key not in mine]


def _shapes(state: Any, path: str = "") -> dict[str, str]:
    if isinstance(state, Mapping):
        items: Iterable[tuple[Any, Any]] = state.items()
    elif isinstance(state, (list, tuple)):
        items = enumerate(state)
    else:
        return {path: f"shape {tuple(state.shape)}" if hasattr(state, "shape") else type(state).__name__}
    return {
        key: text
        for name, value in items
        for key, text in _shapes(value, f"{path}.{name}" if path else str(name)).items()
    }
