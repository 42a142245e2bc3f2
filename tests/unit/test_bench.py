"""The speed benchmark still runs, and prints one JSON document with the keys that readers of it use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.speed import devices

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_benchmark_prints_one_json_document():
    done = subprocess.run(
        [sys.executable, "benchmarks/speed/throughput.py", "--quick"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    sizes = [(row["n_agents"], row["n_tasks"], row["n_envs"]) for row in document["environment"]]
    assert sizes == [(3, 3, 1), (3, 3, 32), (5, 3, 1), (5, 3, 32)]
    assert [row["n_envs"] for row in document["skirmish"]] == [1, 8] * 3
    assert set(document["training"]) == {"lpmarl_3_landmarks_5_agents", "qmix_mlp", "qmix_gru"}
    for job in document["training"].values():
        assert set(job["split"]) == {"environment", "acting", "learning", "rest"}
        assert sum(job["split"].values()) == pytest.approx(1.0, abs=1e-3)
        assert min(job["split"].values()) >= 0
    for row in [*document["environment"], *document["skirmish"], *document["training"].values()]:
        assert row["best"] >= row["median"] > 0
    facts = {"cpu", "cores", "python", "torch", "numba", "torch_threads", "load_average_before", "load_average_after"}
    assert facts <= set(document["machine"])
    assert {"commit", "dirty", "mpe2", "unit", "windows"} <= set(document)


def test_devices_are_measured_side_by_side_as_far_as_they_are_there(capsys):
    assert devices.main(["--only", "vdn_on_3m", "--devices", "cpu", "--seconds", "0.05"]) == 0
    written = capsys.readouterr()
    [found] = json.loads(written.out)["training"].values()
    assert found["cpu"]["updates"] >= 1
    assert min(found["cpu"].values()) > 0
    assert "vdn_on_3m" in written.err
