"""``resume`` of what cannot be resumed, odd paths, and values that were not recorded because they are secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from support.faults import (
    OFTEN,
    before_round,
    full_states,
    interrupted,
    left_by,
    read,
    resume,
    run_in,
    send,
    start,
    status,
)

from components.checkpoint import VERSION
from components.config import load_config
from components.config_layers import Layer
from components.errors import UserError
from envs import REGISTRY
from envs.matrix_games import MatrixGame, MatrixGameOptions
from main import main
from utils.run_lock import RunLock
from utils.run_record import run_folder
from utils.sacred_run import start_run

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("whole")
    assert start(results) == 0
    return run_in(results)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interrupted(tmp_path_factory.mktemp("stopped"))


def refused(folder: object, capsys: Printed, *overrides: str) -> str:
    """What ``resume`` says when it refuses."""
    before = {path: path.stat().st_mtime_ns for path in Path(str(folder)).rglob("*")}
    capsys.readouterr()
    assert resume(Path(str(folder)), *overrides) == 2
    printed = capsys.readouterr().err
    assert "error: " in printed
    assert "Traceback" not in printed
    assert {path: path.stat().st_mtime_ns for path in Path(str(folder)).rglob("*")} == before
    return printed


# --- bad input ---------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_resumed_but_told_how_to_train_on(undisturbed: Path, capsys: Printed) -> None:
    printed = refused(undisturbed, capsys)
    assert "is finished (COMPLETED)" in printed
    assert f"checkpoint_path={undisturbed}/checkpoints/" in printed


def test_a_run_that_goes_on_is_not_resumed(stopped: Path, tmp_path: Path, capsys: Printed) -> None:
    folder = shutil.copytree(stopped, tmp_path / "1")
    (folder / "run.json").write_text(json.dumps(read(folder / "run.json") | {"status": "RUNNING"}))
    with RunLock(folder):
        assert "is still going on: process" in refused(folder, capsys)


def test_folders_that_are_no_run_are_described(stopped: Path, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "agent.th").touch()
    (tmp_path / "file").touch()
    assert "there is no such folder" in refused(tmp_path / "nowhere", capsys)
    assert "there is no such folder" in refused(tmp_path / "file", capsys)
    assert "It holds: nothing" in refused(tmp_path / "empty", capsys)
    assert "It holds: agent.th" in refused(tmp_path / "model", capsys)
    results = tmp_path / "results" / "qmix"
    for name in ("1", "2"):
        shutil.copytree(stopped, results / name)
    printed = refused(tmp_path / "results", capsys)
    assert f"{results / '1'} (INTERRUPTED)" in printed
    assert f"{results / '2'} (INTERRUPTED)" in printed
    # One level too deep: a checkpoint of the run.
    assert "is not the folder of a run" in refused(full_states(stopped)[0], capsys)


def test_a_run_of_pymarl_is_not_resumed(tmp_path: Path, capsys: Printed) -> None:
    folder = tmp_path / "3"
    folder.mkdir()
    pymarl = {
        "name": "qmix",
        "env": "sc2",
        "env_args": {"map_name": "3m"},
        "lr": 0.0005,
        "learner": "q_learner",
        "seed": 1,
    }
    (folder / "config.json").write_text(json.dumps(pymarl | {"buffer_cpu_only": True, "mac": "basic_mac"}))
    (folder / "run.json").write_text(json.dumps({"status": "INTERRUPTED"}))
    printed = refused(folder, capsys)
    assert "buffer_cpu_only" in printed
    assert str(folder / "config.json") in printed


def test_a_run_of_a_newer_version_is_not_resumed(stopped: Path, tmp_path: Path, capsys: Printed) -> None:
    folder = shutil.copytree(stopped, tmp_path / "1")
    (folder / "config.json").write_text(json.dumps(read(folder / "config.json") | {"exploration_of_the_future": 1}))
    printed = refused(folder, capsys)
    assert "exploration_of_the_future" in printed
    assert "unknown key" in printed
    newest = full_states(folder)[0] / "manifest.json"
    shutil.copy(stopped / "config.json", folder / "config.json")
    newest.write_text(json.dumps(read(newest) | {"version": VERSION + 3}))
    assert f"newer lpmarl (checkpoint version {VERSION + 3}" in refused(folder, capsys)


def test_other_settings_are_refused_by_key(stopped: Path, capsys: Printed) -> None:
    assert "lr: checkpoint has 0.0005, this run has 0.1" in refused(stopped, capsys, "lr=0.1")
    assert "lrr (command line): unknown key" in refused(stopped, capsys, "lrr=0.1")
    assert main(["resume"]) == 2
    assert "folder" in capsys.readouterr().err
    assert main(["resume", str(stopped), "--fast"]) == 2
    assert "--fast" in capsys.readouterr().err
    assert status(stopped) == "INTERRUPTED"


@pytest.mark.parametrize("name", ["with spaces", "a:b", "[1]*?", "ünï", "-dash"])
def test_folders_of_any_name_are_resumed(
    name: str, stopped: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name / "q mix" / "run 1"
    shutil.copytree(stopped, folder)
    assert resume(folder) == 0
    assert left_by(folder) == left_by(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_path_is_resumed(
    stopped: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stopped, tmp_path / "7")
    monkeypatch.chdir(tmp_path / "7")
    assert resume(Path(".")) == 0
    assert left_by(tmp_path / "7") == left_by(undisturbed)


@pytest.mark.parametrize(
    "setting", ["name=../../x", "label=../up", "label=a/b", "label=.hidden", "name=a b", "label=a:b"]
)
def test_names_that_would_leave_the_results_are_refused(setting: str, tmp_path: Path, capsys: Printed) -> None:
    assert start(tmp_path / "results", setting) == 2
    printed = capsys.readouterr().err
    assert setting.split("=")[0] in printed
    assert "letters" in printed
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(["name", "label"]), st.text(max_size=120) | st.text("./\\\\: ~\0-_ab", max_size=12))
def test_every_name_and_label_that_is_accepted_stays_below_the_results(key: str, text: str) -> None:
    try:
        config = load_config("vdn", "matrix_game", [Layer({key: text}, {key: "command line"})])
        folder = run_folder(
            Path("/results"), config.run.env, "_".join(filter(None, (config.run.name, config.run.label)))
        )
    except UserError:
        return
    assert folder.parent == Path("/results/sacred/matrix_game")
    assert os.path.normpath(folder) == str(folder)


# --- secrets -----------------------------------------------------------------------------------------------------

SECRET = "s3cret-v4lue"  # noqa: S105


class SecretGameOptions(MatrixGameOptions):
    api_key: str = Field("", description="key")
    login: dict[str, str] = Field({}, description="who")
    server: str = Field("", description="where")


class SecretGame(MatrixGame):
    """Needs a login."""


@pytest.fixture
def secret_game() -> Iterator[None]:
    REGISTRY.add("secret_game", SecretGame, SecretGameOptions)
    yield
    del REGISTRY._entries["secret_game"]


SECRETS = (
    f"env_args.api_key={SECRET}",
    "env_args.login.user=me",
    f"env_args.login.password={SECRET}",
    f"env_args.server=https://me:{SECRET}@example.org/game",
)
PLAY = ["env=secret_game", "batch_size_run=2", "buffer_size=8", "batch_size=4", "t_max=40", "replay_nepisode=0"]
PLAY += ["test_nepisode=2", "final_nepisode=2", "test_interval=10", "log_interval=5", "save_model_interval=10"]


def play(results: Path) -> int:
    settings = [*PLAY, *SECRETS, OFTEN, f"local_results_path={results}"]
    return main(["--config=iql", "--env-config=matrix_game", "with", *settings])


def hides(folder: Path) -> bool:
    return not any(SECRET.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("secret_game")
def test_secrets_are_in_no_file_and_asked_for_by_key(tmp_path: Path, capsys: Printed) -> None:
    assert play(tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 8, send())
        assert play(tmp_path / "stopped") == 143
    whole, folder = run_in(tmp_path / "whole"), run_in(tmp_path / "stopped")
    assert len(full_states(folder)) == 2
    assert len(list((whole / "checkpoints").iterdir())) > 2
    assert hides(tmp_path)
    assert SECRET not in "".join(capsys.readouterr())
    assert read(whole / "config.json")["env_args"]["login"]["user"] == "me"
    assert "env_args.api_key" in read(whole / "config_sources.json")

    printed = refused(folder, capsys)
    for key in ("api_key", "login", "server"):
        assert f"env_args.{key}" in printed
    assert "seed" not in printed
    printed = refused(folder, capsys, *SECRETS[:3])
    assert "env_args.server was not recorded, it is secret" in printed
    assert "api_key" not in printed
    assert resume(folder, *SECRETS) == 0
    assert left_by(folder) == left_by(whole)
    assert main(["evaluate", str(folder), "--episodes", "2", "with", *SECRETS]) == 0
    assert hides(tmp_path)
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("secret_game")
def test_secrets_are_not_in_what_a_failed_update_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecretGame, "step", lambda self, actions: (self._observation(), float("nan"), True, False, {}))
    assert play(tmp_path) == 1
    assert (run_in(tmp_path) / "failed_update" / "manifest.json").is_file()
    assert hides(tmp_path)


def test_the_address_of_the_repository_is_not_recorded(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    (root / "file").write_text("1")
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", f"https://oauth2:{SECRET}@example.org/x.git"],
        ["add", "file"],
        ["commit", "-q", "-m", "one"],
    ):
        subprocess.run(["git", "-C", root, *name, *words], check=True, capture_output=True)

    def nothing(run: Any, folder: Path) -> Path:
        return folder

    folder = start_run({"seed": 1}, tmp_path / "runs", nothing, root)
    assert len(read(folder / "run.json")["experiment"]["repositories"][0]["commit"]) == 40
    assert hides(tmp_path / "runs")
