"""The benchmark of SEAC's memory still runs, and says how it grows with the number of agents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.speed import seac_memory  # noqa: E402


def test_what_a_step_keeps_grows_with_the_square_of_the_agents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seac_memory.main([str(tmp_path / "new"), "--quick"]) == 0
    few, many = json.loads((tmp_path / "new" / "seac_memory.json").read_text())["maps"]
    assert (few["n_agents"], many["n_agents"]) == (3, 5)
    assert 0.1 < few["kept_mib"] < many["kept_mib"] < 4.5 * few["kept_mib"]
    assert many["peak_mib"] < 2000
    assert (tmp_path / "new" / "seac_memory.md").read_text() in capsys.readouterr().out
