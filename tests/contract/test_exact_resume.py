"""A killed and resumed run ends as the uninterrupted one: every learner, both runners, all three signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_runs import EARLY

from components.config import load_config

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("batch_size_run=4", "buffer_size=40", "test_nepisode=6", "final_nepisode=8", "test_interval=150"),
    *("log_interval=60", "save_model_interval=400", "save_buffer=true", "checkpoint_minutes=0.002"),
    *("env_args.episode_limit=8", "t_max=1600"),
]
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
KILLS = 4  # per case, at random moments


# One algorithm for each learner; the runners differ in what they keep, not in what the learner does.
CASES = [("qmix", 0), ("qmix", 1), ("lpmarl", 0), ("lpmarl", 1)] + [
    (name, 0) for name in ("dec_lpmarl", "hsd", "ldsa", "maac", "maddpg", "mappo", "qplex", "rode", "seac", "vdn")
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "runner"), CASES, ids=[f"{name}-{('episode', 'parallel')[i]}" for name, i in CASES]
)
def test_a_killed_run_ends_as_if_it_had_never_stopped(algorithm: str, runner: int, tmp_path: Path) -> None:
    seed = sum(map(ord, algorithm)) + runner
    early = EARLY[load_config(algorithm, "constrained_navigation", SMALL).run.learner]
    words = [*SMALL, *early, *RUNNERS[runner]]
    arguments = [f"--config={algorithm}", "--env-config=constrained_navigation", "with", *words]
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
