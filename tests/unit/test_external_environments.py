"""Environments that are programs of their own: how many are started, and what a resume says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.faults import interrupted, resume
from support.small_runs import small_parts

import envs.navigation
from components.config import load_config
from components.config_layers import algorithm_names
from envs.base import EnvInfo


@pytest.fixture
def external(monkeypatch: pytest.MonkeyPatch) -> None:
    """Navigation says that it is one."""
    monkeypatch.setattr(envs.navigation, "EnvInfo", partial(EnvInfo, external=True))


@pytest.mark.usefixtures("external")
def test_tests_start_no_more_of_them_than_training() -> None:
    for n_test, at_once in ((20, 3), (2, 2)):
        sizes = ("batch_size_run=3", f"test_nepisode={n_test}")
        parts = small_parts("vdn", "constrained_navigation", *sizes)
        assert (parts.train.envs.n_envs, parts.test.envs.n_envs) == (3, at_once)
        parts.close()


@pytest.mark.usefixtures("external")
def test_a_resume_says_once_that_it_is_not_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = interrupted(tmp_path)
    assert "cannot be saved" not in capsys.readouterr().err
    assert resume(folder) == 0
    assert capsys.readouterr().err.count("a game of constrained_navigation cannot be saved") == 1


@pytest.mark.parametrize("env", ["sc2", "sc2_sparse"])
@pytest.mark.parametrize("algorithm", algorithm_names())
def test_no_algorithm_starts_more_games_than_a_machine_holds(algorithm: str, env: str) -> None:
    config = load_config(algorithm, env)
    assert config.run.runner == "parallel"
    assert config.values["n_workers"] == 8
    # Eight are the environment's; the official settings of some baselines have a number of their own.
    assert config.run.batch_size_run == 8 or (algorithm.endswith("_official") and config.run.batch_size_run <= 12)
