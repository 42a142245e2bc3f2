"""Damaged, foreign and malicious full states: named, passed over or refused, never run, and what follows is exact."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import (
    OFTEN,
    before_round,
    full_states,
    interrupted,
    left_by,
    read,
    resume,
    send,
    start,
    status,
)

from components import checkpoint
from main import main

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A run that was interrupted with two full states; each test has a copy."""
    folder = tmp_path / "qmix" / "1"
    shutil.copytree(stopped, folder)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def reseal(folder: Path, **changes: Any) -> None:
    """Makes a changed checkpoint look sound, as an attacker or another version would."""
    manifest = read(folder / "manifest.json")
    for name in ("tensors.pt", "state.json"):
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(checkpoint._sealed(manifest | changes)))


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tensors.pt", flip),
        ("tensors.pt", cut),
        ("state.json", flip),
        ("state.json", empty),
        ("manifest.json", flip),
        ("manifest.json", cut),
        ("manifest.json", empty),
        ("tensors.pt", Path.unlink),
        ("manifest.json", Path.unlink),
    ],
)
def test_a_damaged_full_state_is_named_and_the_one_before_is_used(
    name: str, damage: Callable[[Path], None], run: Path, capsys: Printed, undisturbed: dict[str, Any]
) -> None:
    newest, before = full_states(run)
    damage(newest / name)
    capsys.readouterr()
    assert resume(run) == 0
    printed = capsys.readouterr().err
    assert str(newest / name) in printed or (damage is Path.unlink and str(newest) in printed)
    assert f"Using the checkpoint before it: {before}" in printed
    if damage is flip and name == "tensors.pt":
        assert "SHA-256 does not match" in printed
    assert left_by(run) == undisturbed


def test_when_every_full_state_is_damaged_the_run_starts_from_the_beginning(
    run: Path, capsys: Printed, undisturbed: dict[str, Any]
) -> None:
    for folder in full_states(run):
        flip(folder / "tensors.pt")
    capsys.readouterr()
    assert resume(run) == 0
    printed = capsys.readouterr().err
    assert printed.count("is damaged") == 2
    assert "No other checkpoint can be used" in printed
    assert "starts from the beginning" in printed
    assert left_by(run) == undisturbed


def test_a_full_state_whose_metrics_are_gone_is_passed_over(
    run: Path, capsys: Printed, undisturbed: dict[str, Any]
) -> None:
    newest, before = full_states(run)
    needed = [checkpoint.verify_checkpoint(folder)["metrics_bytes"] for folder in (newest, before)]
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[: needed[0] - 1])
    assert needed[1] < needed[0]
    capsys.readouterr()
    assert resume(run) == 0
    printed = capsys.readouterr().err
    assert f"has {needed[0] - 1} bytes" in printed
    assert f"Using the checkpoint before it: {before}" in printed
    assert left_by(run) == undisturbed


def test_without_any_metrics_file_the_run_starts_from_the_beginning(
    run: Path, capsys: Printed, undisturbed: dict[str, Any]
) -> None:
    (run / "metrics.jsonl").unlink()
    assert resume(run) == 0
    assert "starts from the beginning" in capsys.readouterr().err
    assert left_by(run) == undisturbed


def test_full_states_saved_after_a_fallback_are_kept(run: Path, capsys: Printed, undisturbed: dict[str, Any]) -> None:
    """The damaged ones have more environment steps, but they are not what the run can go on from."""
    damaged = [folder.name for folder in full_states(run)]
    for folder in full_states(run):
        flip(folder / "tensors.pt")
    with pytest.MonkeyPatch.context() as patch:
        before_round(patch, 3, send())
        assert resume(run) == 143
    found = [folder.name for folder in full_states(run)]
    assert len(found) == 2
    assert not set(found) & set(damaged)
    capsys.readouterr()
    assert resume(run) == 0
    assert "starts from the beginning" not in capsys.readouterr().err
    assert left_by(run) == undisturbed


# --- another configuration or version ----------------------------------------------------------------------------


def test_an_edited_configuration_is_refused_with_the_keys(run: Path, capsys: Printed) -> None:
    config = read(run / "config.json")
    config["lr"], config["env_args"]["n_agents"] = 0.1, 4
    (run / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert resume(run) == 2
    printed = capsys.readouterr().err
    assert "lr: checkpoint has 0.0005, this run has 0.1" in printed
    assert "env_args: checkpoint has" in printed
    assert "gamma" not in printed
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_full_state_of_another_algorithm_is_refused(run: Path, tmp_path: Path, capsys: Printed) -> None:
    other = interrupted(tmp_path / "other", algorithm="vdn")
    shutil.rmtree(run / "resume")
    shutil.copytree(other / "resume", run / "resume")
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() + (other / "metrics.jsonl").read_bytes())
    capsys.readouterr()
    assert resume(run) == 2
    printed = capsys.readouterr().err
    assert 'name: checkpoint has "vdn", this run has "qmix"' in printed
    assert 'mixer: checkpoint has "vdn", this run has "qmix"' in printed
    assert "seed" not in printed
    assert status(run) == "INTERRUPTED"


def test_a_full_state_of_another_version_of_the_environment_is_refused(run: Path, capsys: Printed) -> None:
    newest = full_states(run)[0]
    meta = read(newest / "manifest.json")["meta"]
    reseal(newest, meta=meta | {"env_version": meta["env_version"] + 1})
    assert resume(run) == 2
    assert "env_version: checkpoint has 2, this run has 1" in capsys.readouterr().err
    assert status(run) == "INTERRUPTED"


def test_a_newer_full_state_is_refused(run: Path, capsys: Printed) -> None:
    reseal(full_states(run)[0], version=checkpoint.VERSION + 1)
    assert resume(run) == 2
    printed = capsys.readouterr().err
    assert "written by a newer lpmarl" in printed
    assert "update lpmarl" in printed
    assert status(run) == "INTERRUPTED"


def test_an_early_full_state_is_named(run: Path, capsys: Printed, undisturbed: dict[str, Any]) -> None:
    reseal(full_states(run)[0], version=checkpoint.VERSION - 1)
    assert resume(run) == 0
    assert "written by an early lpmarl" in capsys.readouterr().err
    assert left_by(run) == undisturbed


def test_a_checkpoint_of_another_experiment_is_no_start(run: Path, tmp_path: Path, capsys: Printed) -> None:
    path = f"checkpoint_path={full_states(run)[0]}"
    results = tmp_path / "new"
    assert start(results, path, algorithm="vdn") == 2
    assert 'algorithm: checkpoint has "qmix", this run has "vdn"' in capsys.readouterr().err
    assert start(results, path, env="navigation") == 2
    assert 'env: checkpoint has "constrained_navigation", this run has "navigation"' in capsys.readouterr().err
    assert start(results, path, "env_args.n_agents=6") == 2
    printed = capsys.readouterr().err
    assert '"n_agents": 5' in printed
    assert '"n_agents": 6' in printed
    assert not results.exists()


def test_a_new_run_may_start_from_a_full_state(run: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "new", f"checkpoint_path={full_states(run)[0]}", OFTEN, "seed=5") == 0


# --- malice ------------------------------------------------------------------------------------------------------


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def plant(folder: Path, canary: Path, name: str) -> None:
    if name == "tensors.pt":
        torch.save({"weight": Canary(canary)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    reseal(folder)


@pytest.mark.parametrize("name", ["tensors.pt", "state.json"])
def test_a_checkpoint_that_would_run_code_is_refused(name: str, run: Path, tmp_path: Path, capsys: Printed) -> None:
    canary, model = tmp_path / "canary", run / "checkpoints" / "64"
    shutil.copytree(full_states(run)[0], model)
    for folder in [model, *full_states(run)]:
        plant(folder, canary, name)
    assert start(tmp_path / "new", f"checkpoint_path={model}") == 2
    assert str(model / name) in capsys.readouterr().err
    assert main(["evaluate", str(model), "--episodes", "2"]) == 2
    assert str(model / name) in capsys.readouterr().err
    assert resume(run) == 2
    assert str(full_states(run)[0] / name) in capsys.readouterr().err
    assert not canary.exists()
