"""The example and the page that show the assignment layer outside of this framework."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/assignment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def printed(block: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a block of the page prints, in one line."""
    script = folder / "block.py"
    script.write_text(block, encoding="utf-8")
    runpy.run_path(str(script))
    return " ".join(capsys.readouterr().out.split())


def test_the_example_learns_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(ROOT / "examples/assignment_layer.py"), "--steps", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    *lines, picture = done.stdout.splitlines()
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    regrets = [[float(share) for share in re.findall(r"([\d.]+)%", line)] for line in lines]
    assert [len(found) for found in regrets] == [2, 2, 2]
    assert all(before > 80 and after < 6 for before, after in regrets)


def test_the_first_ten_lines_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 2
    assert len(BLOCKS[0].strip().splitlines()) == 10
    assert printed(BLOCKS[0], tmp_path, capsys) == ""


def test_what_the_page_says_is_printed_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(comment.partition(":")[0] for comment in re.findall(r"# (.*)", BLOCKS[1]))
    assert printed(BLOCKS[1], tmp_path, capsys) == " ".join(told.split())


def test_the_page_names_all_differentiators_and_back_ends() -> None:
    from modules.assignment import DIFFERENTIATORS, SOLVERS

    tables = PAGE.split("## ")
    for title, registry in (("Differentiators", DIFFERENTIATORS), ("Back ends", SOLVERS)):
        section = next(part for part in tables if part.startswith(title))
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(registry)
