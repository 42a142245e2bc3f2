"""Reading a command's arguments: argparse whose faults are the user's errors, and ``with key=value`` at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from components.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``UserError`` instead of leaving the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raises ``UserError`` with the usage."""
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments before the word ``with``, and the ``key=value`` texts after it."""
    cut = list(argv).index("with") if "with" in argv else len(argv)
    return list(argv[:cut]), list(argv[cut + 1 :])
