"""Compiled functions are kept, but not beyond a change in the files beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
SRC = Path(__file__).resolve().parents[2] / "src"
CALLER = """
from beside import FACTOR, add
from components.jit import njit

@njit(cache=True)
def caller(x):
    return add(x) * FACTOR

print(caller(1), sum(caller.stats.cache_hits.values()))
"""
BESIDE = """
from components.jit import njit

FACTOR = {factor}

@njit(cache=True)
def add(x):
    return x + {more}
"""


def run(folder: Path) -> str:
    path = os.pathsep.join([str(SRC), str(folder)])
    done = subprocess.run(
        [sys.executable, "caller.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_change_beside_a_compiled_function_compiles_it_anew(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "beside.py").write_text(BESIDE.format(factor=1, more=1))
    assert run(tmp_path) == "2 0"
    assert run(tmp_path) == "2 1"
    (tmp_path / "beside.py").write_text(BESIDE.format(factor=1, more=5))
    assert run(tmp_path) == "6 0"
    (tmp_path / "beside.py").write_text(BESIDE.format(factor=10, more=5))
    assert run(tmp_path) == "60 0"
