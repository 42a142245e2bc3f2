"""What a run records about itself, made safe: commit, redacted configuration, folder names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config import REDACTED
from components.errors import UserError

NAME_LENGTH = 100
UNKNOWN = "unknown"
_ENVS = "src/envs"

_SECRET_KEY = re.compile(r"password|token|secret|api_?key", re.IGNORECASE)
_TOKEN_KEY = re.compile(r"token", re.IGNORECASE)
_URL_USER = re.compile(r"([a-z][a-z0-9+.\-]*://)[^/\s@]+@", re.IGNORECASE)


def git_commit(root: Path) -> dict[str, str | bool | None]:
    """The commit of a checkout, and of its environments: results compare only where those agree.

    Returns:
        ``commit`` (hex) and ``dirty`` (whether tracked files are changed); ``env_commit``, the last commit that
        touched ``src/envs``, and ``env_dirty``. ``"unknown"`` and ``None`` where ``root`` holds no tracked file,
        there is no commit yet, or git is not installed.
    """
    # A package installed inside somebody else's checkout is not part of it.
    ours = _git(root, "ls-files", "--error-unmatch", ".") is not None
    commit = _git(root, "rev-parse", "--verify", "HEAD") if ours else None
    if commit is None:
        return {"commit": UNKNOWN, "dirty": None, "env_commit": UNKNOWN, "env_dirty": None}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "dirty": None if changes is None else changes != "",
        "env_commit": _git(root, "log", "-1", "--format=%H", "--", _ENVS) or UNKNOWN,
        "env_dirty": None if changes is None else any(line[3:].startswith(_ENVS) for line in changes.splitlines()),
    }


def redact(value: Any, key: str = "") -> Any:
    """A copy without secrets: values under telling keys, and users and tokens in URLs.

    Numbers under a ``token`` key stay (they are sizes, such as ``token_dim``).

    Args:
        value: nested dictionaries, lists, tuples and plain values.
        key: the key under which ``value`` stands.
    """
    if isinstance(value, Mapping):
        return {
            name: redact(item, f"{key}.{name}" if _SECRET_KEY.search(key) else str(name))
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)([redact(item, key) for item in value])
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key) and not (isinstance(value, (int, float)) and _is_size(key)):
        return REDACTED
    return _URL_USER.sub(rf"\g<1>{REDACTED}@", value) if isinstance(value, str) else value


def safe_name(text: str) -> str:
    """A folder name made of what a user wrote: letters, digits and ``._+=-``; the rest becomes ``_``.

    Raises:
        UserError: nothing of it is left to name a folder.
    """
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", text).lstrip(".")[:NAME_LENGTH].rstrip(".")
    if not name.strip("_"):
        raise UserError(f"{text!r} cannot name a folder: use letters and digits")
    return name


def run_folder(results: Path, env: str, algorithm: str) -> Path:
    """Where the runs of one experiment lie, as PyMARL has them; always below ``results``."""
    return Path(results) / "sacred" / safe_name(env) / safe_name(algorithm)


def _is_size(key: str) -> bool:
    return _SECRET_KEY.search(_TOKEN_KEY.sub("", key)) is None


def _git(root: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None or not root.is_dir():
        return None
    try:
        done = subprocess.run(
            [program, "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip()
