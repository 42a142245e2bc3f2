"""The benchmark of decision times still runs and writes what its readers use."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.speed import decision_time  # noqa: E402


def test_two_sizes_are_measured_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decision_time.main([str(tmp_path / "new"), "--quick"]) == 0
    document = json.loads((tmp_path / "new" / "decision_time.json").read_text())
    assert [(row["n_agents"], row["n_tasks"]) for row in document["sizes"]] == [(10, 5), (20, 10)]
    for row in document["sizes"]:
        assert 0 < row["lp"] < row["act"]
        assert row["network"] > 0
    assert (tmp_path / "new" / "decision_time.png").stat().st_size > 5000
    assert (tmp_path / "new" / "decision_time.md").read_text() in capsys.readouterr().out


def test_the_growth_is_the_slope_in_log_log_of_the_larger_sizes() -> None:
    rows = [{"n_agents": n, "n_tasks": n, "lp": max(1.0, (n * n / 100.0) ** 1.5)} for n in (2, 4, 20, 40, 80)]
    assert decision_time.exponent(rows, "lp") == pytest.approx(1.5)
