"""A killed and resumed run ends as the uninterrupted one: every algorithm, both runners, all three signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("batch_size_run=4", "buffer_size=40", "test_nepisode=6", "final_nepisode=8", "test_interval=150"),
    *("log_interval=60", "save_model_interval=400", "save_buffer=true", "checkpoint_minutes=0.002"),
    *("env_args.episode_limit=8", "t_max=1600"),
]
LPMARL = ["warmup_episodes=4", "env_steps_per_update=40", "high_interval=1", "batch_size_high=16", "batch_size_low=16"]
Q_LEARNER = ["batch_size=4", "episodes_per_update=4", "target_update_interval=10"]
RUNNERS = (["runner=episode"], ["runner=parallel", "n_workers=1"])
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": 137, "end": 0}
CODE = """
import json, pathlib, sys
import exact_resume
folder, seed, kills, *arguments = sys.argv[1:]
folder = pathlib.Path(folder)
exact_resume.warm(folder, arguments)
print(json.dumps(exact_resume.compare(folder, int(seed), int(kills), arguments)))
"""
KILLS = 4  # per case: 24 in all, at random moments


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS, ids=["episode", "parallel"])
@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [("qmix", Q_LEARNER), ("vdn", Q_LEARNER), ("lpmarl", LPMARL)],
    ids=["qmix", "vdn", "lpmarl"],
)
def test_a_killed_run_ends_as_if_it_had_never_stopped(
    algorithm: str, settings: list[str], runner: list[str], tmp_path: Path
) -> None:
    seed = sum(map(ord, algorithm + runner[0]))
    arguments = [f"--config={algorithm}", "--env-config=constrained_navigation", "with", *SMALL, *settings, *runner]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    # Not as a script: the environments' worker processes would import it again, PyTorch included.
    command = [sys.executable, "-c", CODE, tmp_path, str(seed), str(KILLS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    found = json.loads(done.stdout)
    assert found["whole"]["status"] == "COMPLETED"
    assert found["whole"]["full_states"] == []
    assert sum(status != "COMPLETED" for _, _, _, status in found["starts"]) >= KILLS
    for name, _, code, status in found["starts"]:
        assert code in (0, CODES[name])
        # "": killed before there was a record; what a kill before it is reopened leaves is the status before.
        assert status in ("", "COMPLETED", "DEAD", "INTERRUPTED"), found["starts"]
    for resumed in found["resumed"]:
        assert resumed == found["whole"]
