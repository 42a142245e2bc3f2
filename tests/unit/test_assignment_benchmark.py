"""The benchmark of the assignment solvers still runs, agrees with itself, and writes what readers of it use."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"kernel", "torch", "glop", "lsa", "lsa_direct", "glop_rebuilt"}


@pytest.mark.slow
def test_quick_benchmark_writes_json_and_plots(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/speed/assignment.py", str(tmp_path / "new"), "--quick"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "new" / "assignment.json").read_text())
    sizes = [(row["n_agents"], row["n_tasks"], row["capacities"]) for row in document["sizes"]]
    assert sizes == [(n, m, kind) for n, m in ((3, 3), (5, 3), (7, 5)) for kind in ("tight", "slack")]
    for row in document["sizes"]:
        assert set(row["methods"]) == METHODS
        assert set(row["kernel_times_as_fast_as"]) == METHODS - {"kernel"}
        assert row["largest_difference"] < 1e-6
        assert row["states"] == 1600
    for row in [*document["sizes"], *document["growth_with_agents"], *document["growth_with_tasks"]]:
        assert all(rate["best"] >= rate["median"] > 0 for rate in row["methods"].values())
    assert document["layer"]["blackbox"]["median"] > 0
    assert (tmp_path / "new" / "assignment.png").stat().st_size > 10_000
    assert "| (5,3) |" in done.stdout


@pytest.fixture
def methods() -> Any:
    path = ROOT / "benchmarks" / "speed" / "assignment_methods.py"
    spec = importlib.util.spec_from_file_location("assignment_methods", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_methods_compared_solve_the_same_problem(methods: Any) -> None:
    """Optima worked out by hand."""
    scores, capacity = np.array([[3.0, 2.0], [2.0, 1.0], [0.0, 5.0]]), np.array([2, 2])
    assert methods.direct_lsa(scores, capacity) == pytest.approx(10.0)
    assert methods.rebuilt_glop(scores, capacity) == pytest.approx(10.0)
    assert methods.direct_lsa(scores, np.array([1, 2])) == pytest.approx(9.0)
    assert methods.rebuilt_glop(scores, np.array([1, 2])) == pytest.approx(9.0)
