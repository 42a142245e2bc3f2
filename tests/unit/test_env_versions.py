"""What each version of an environment plays: whoever changes it raises ``EnvInfo.version`` and records it anew.

``PYTHONPATH=src:. python tests/unit/test_env_versions.py`` writes the record.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from components.config import load_config
from envs import REGISTRY
from envs.base import derive_seeds
from envs.vector import in_process

RECORD = Path(__file__).parents[1] / "golden" / "env_versions.json"
# SMAC has versions of its own: tests/contract/test_smac_arrays.py.
EXTERNAL = {"sc2"}
CASES = {
    **{name: (name, []) for name in REGISTRY if name not in EXTERNAL},
    "navigation dense": ("navigation", ["env_args.rewards=dense", "env_args.reach_reward=delta"]),
    "skirmish 2s3z dense": ("skirmish", ["env_args.map_name=2s3z", "env_args.reward_sparse=false"]),
    "skirmish missiles": ("skirmish", ["env_args.map_name=8m_missiles", "env_args.capacity=shots_to_kill"]),
    "skirmish random targets": ("skirmish", ["env_args.map_name=8m", "env_args.enemy_targets=random"]),
}
B, STEPS = 8, 60


def play(env: str, overrides: list[str]) -> dict[str, float]:
    """Random legal play: what was seen and earned, each field added up with weights that tell places apart."""
    config = load_config("iql", env, overrides)
    probe = in_process(env, config.parts["env"], [0], ("avail_actions",)).info
    fields = tuple(probe.field_shapes())
    envs = in_process(env, config.parts["env"], derive_seeds(0, 0, B), fields)
    rng, seen = np.random.default_rng(0), {"version": float(probe.version)}
    active = np.zeros(B, dtype=np.bool_)
    for t in range(STEPS):
        if not active.any():
            envs.reset()
            active[:] = True
        told = {key: envs.observation[key] for key in fields}
        draws = rng.random(told["avail_actions"].shape)
        # Attacks first: battles are to be fought.
        result = envs.step((draws * told["avail_actions"] * (1 + np.arange(draws.shape[-1]))).argmax(-1), active)
        told |= {"reward": result.reward, "terminated": result.terminated, **result.extras}
        for key, value in told.items():
            rows = np.asarray(value, dtype=np.float64)[active]
            seen[key] = seen.get(key, 0.0) + float((rows.ravel() * np.cos(t + np.arange(rows.size))).sum())
        active &= ~(result.terminated | result.truncated)
    return seen


@pytest.mark.parametrize("case", CASES)
def test_a_version_plays_what_it_always_has(case):
    recorded = json.loads(RECORD.read_text())[case]
    assert play(*CASES[case]) == pytest.approx(recorded, rel=1e-4, abs=1e-4), (
        "the environment plays something else: raise its EnvInfo.version and run this file"
    )


if __name__ == "__main__":
    RECORD.write_text(json.dumps({name: play(*case) for name, case in CASES.items()}, indent=1) + "\n")
