"""Our compiled views and rewards are those of the real smac package, on unit tables recorded from it.

tests/sc2/record.py made the records; nothing of StarCraft is needed here.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from envs.skirmish import Skirmish, SkirmishOptions
from envs.skirmish_rewards import N_OUTCOME, REWARD, judge
from envs.skirmish_world import BEFORE, N_SCRATCH

FILES = sorted((Path(__file__).resolve().parents[1] / "golden").glob("smac_*.npz"))


def variants(path):
    """(map, its options, field -> [T, ...]) for each variant of a record."""
    with np.load(path) as file:
        for index, text in enumerate(file["options"]):
            mark = f"{index}."
            arrays = {key.removeprefix(mark): file[key] for key in file.files if key.startswith(mark)}
            yield pytest.param(path.stem.removeprefix("smac_"), json.loads(str(text)), arrays, id=path.stem + text)


RECORDS = [variant for path in FILES for variant in variants(path)]


def shown(name, options, arrays):
    """One battle for each recorded step, in that step's situation."""
    fields = ("obs", "state", "avail_actions")
    env = Skirmish(SkirmishOptions(map_name=name, **options), list(range(len(arrays["steps"]))), fields)
    env.reset()
    state = env.state_dict()
    for key in ("units", "last_action", "steps"):
        state["world"][key] = arrays[key].astype(state["world"][key].dtype)
    env.load_state_dict(state)
    return env


def test_the_records_are_there():
    assert len(FILES) == 8
    assert all(path.stat().st_size < 100_000 for path in FILES)


@pytest.mark.parametrize(("name", "options", "arrays"), RECORDS)
def test_the_same_units_look_the_same(name, options, arrays):
    env = shown(name, options, arrays)
    if options.get("obs_timestep_number"):
        # smac counts the column of the step among an agent's own, leaves it 0, and appends the step.
        assert not arrays["obs"][..., -2].any()
        arrays = arrays | {"obs": np.delete(arrays["obs"], -2, axis=-1)}
    for field, ours in env.observation.items():
        assert ours.shape == arrays[field].shape
        np.testing.assert_allclose(ours, arrays[field], rtol=0, atol=1e-6, err_msg=field)


@pytest.mark.parametrize(("name", "options", "arrays"), RECORDS)
def test_the_same_step_is_worth_the_same(name, options, arrays):
    env = shown(name, options, arrays)
    n, u = env.info.n_agents, arrays["units"].shape[-1]
    scratch, outcome, ended = np.zeros((N_SCRATCH, u)), np.zeros(N_OUTCOME, np.float32), np.zeros(2, np.bool_)
    for t in np.flatnonzero(arrays["steps"]):
        scratch[BEFORE] = arrays["before"][t]
        judge(n, arrays["units"][t].astype(np.float64), scratch, env._rewards, False, outcome, ended)
        assert outcome[REWARD] == pytest.approx(arrays["reward"][t], abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(("name", "options", "arrays"), RECORDS)
def test_people_die_and_battles_are_won_in_the_records(name, options, arrays):
    life, n = arrays["units"][:, 2], arrays["last_action"].shape[1]
    assert (life[:, :n] == 0).any()
    assert ((life[:, n:] == 0).all(1) & (life[:, :n] > 0).any(1)).any()
