import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components import checkpoint, files
from components.checkpoint import (
    VERSION,
    NewerVersion,
    load_checkpoint,
    load_into,
    require_same,
    save_checkpoint,
    verify_checkpoint,
)
from components.errors import UserError

META = {"algorithm": "qmix", "env": "navigation", "env_args": {"n_agents": 3}, "env_steps": 120, "commit": "unknown"}
NAMES = ("manifest.json", "state.json", "tensors.pt")


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(
        tmp_path / "ckpt", {"weight": torch.arange(6.0), "n": [1, 2.5, "x"], "array": np.zeros(8, "u1")}, META
    )


def only_checkpoint(folder):
    return [entry.name for entry in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(1)])
def test_meta_must_be_plain_json(tmp_path, value):
    with pytest.raises(TypeError, match="meta 'score'"):
        save_checkpoint(tmp_path / "ckpt", {}, {"score": value})


def test_meta_with_integer_keys_and_tuples_is_json(tmp_path):
    folder = save_checkpoint(tmp_path / "ckpt", {}, {"sizes": {10: (1, 2), 9: ()}})
    assert load_checkpoint(folder).meta == {"sizes": {"10": [1, 2], "9": []}}


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_seen(saved, name):
    path = saved / name
    good = path.read_bytes()
    for position in range(0, len(good), max(1, len(good) // 60)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        if name == "manifest.json" and good[position : position + 1].isspace():
            continue  # white space between JSON entries may change into other white space
        with pytest.raises(UserError, match=rf"{name}|newer lpmarl"):
            load_checkpoint(saved)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0, 20, -1])
def test_truncated_and_empty_files_are_named(saved, name, keep):
    path = saved / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{name}.*truncated"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", NAMES)
def test_a_deleted_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=name):
        load_checkpoint(saved)


def test_verify_checks_without_loading(saved, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    assert verify_checkpoint(saved) == META
    path = saved / "tensors.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match=r"tensors.pt is damaged"):
        verify_checkpoint(saved)


def reseal(folder, **changes):
    """Rewrites manifest and hashes as an attacker or another version would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("tensors.pt", "state.json"):
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": files.hashlib.sha256(data).hexdigest()}
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(checkpoint._sealed({**manifest, **changes})))


def test_an_early_version_is_refused(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**manifest, "version": VERSION - 1}))
    with pytest.raises(UserError, match=rf"early lpmarl .*version {VERSION - 1}.*train anew"):
        load_checkpoint(saved)


def test_a_newer_version_is_refused_even_if_its_seal_differs(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**manifest, "version": VERSION + 1}))
    with pytest.raises(NewerVersion, match=rf"newer lpmarl .*version {VERSION + 1}.*update"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "changes", [{"version": 0}, {"version": "1"}, {"version": None}, {"meta": 3}, {"files": {}}, {"files": None}]
)
def test_a_forged_manifest_is_refused(saved, changes):
    reseal(saved, **changes)
    with pytest.raises(UserError, match=r"manifest.json"):
        load_checkpoint(saved)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_pickle_payload_is_refused_and_not_run(saved, tmp_path, write):
    canary = tmp_path / "canary"
    write({"weight": Canary(canary)}, saved / "tensors.pt")
    reseal(saved)
    with pytest.raises(UserError, match=r"tensors.pt was refused"):
        load_checkpoint(saved)
    assert not canary.exists()


@pytest.mark.parametrize(
    "state",
    [
        {"#": "builtins.exec", "items": "1"},
        {"#": ["unhashable"]},
        {"#": "tensor", "name": "nobody"},
        {"#": "numpy", "name": "array", "dtype": "<U1", "shape": [2]},
        {"#": "numpy", "name": "array", "dtype": "O", "shape": [1]},
        {"#": "numpy", "name": "array", "dtype": "<f4", "shape": [-1]},
        {"#": "numpy", "name": "array", "dtype": "<f4", "shape": [3]},
        {"#": "numpy", "name": "weight", "dtype": "<f4", "shape": [6]},
        {"#": "float", "bits": "7ff8"},
        {"#": "dict", "items": [[[1], 2]]},
        {"#": "tuple"},
    ],
)
def test_a_forged_state_is_refused(saved, state):
    (saved / "state.json").write_text(json.dumps(state))
    reseal(saved)
    with pytest.raises(UserError, match=r"state.json is not an encoded state"):
        load_checkpoint(saved)


def test_deep_nesting_is_refused(saved):
    (saved / "state.json").write_text("[" * 100_000 + "]" * 100_000)
    reseal(saved)
    with pytest.raises(UserError, match=r"state.json"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (None, "no such folder"),
        ([], "it is empty"),
        (["agent.th", "mixer.th"], r"PyMARL model folder \(agent.th, mixer.th\)"),
        (["1/manifest.json", "2/manifest.json"], "give one of 1, 2"),
        (["notes.txt"], "a folder with notes.txt"),
    ],
)
def test_foreign_folders_are_described(tmp_path, names, words):
    folder = tmp_path / "ckpt"
    for name in names or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if names == []:
        folder.mkdir()
    with pytest.raises(UserError, match=words):
        load_checkpoint(folder)


def test_a_file_and_a_foreign_manifest_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        load_checkpoint(tmp_path / "file")
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(UserError, match="no format 'lpmarl-checkpoint'"):
        load_checkpoint(tmp_path)


# --- atomicity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [True, False], ids=["exchange", "two renames"])
def test_a_checkpoint_is_replaced(saved, monkeypatch, swap):
    if not swap:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    save_checkpoint(saved, {"new": 1}, META)
    assert load_checkpoint(saved).state == {"new": 1}
    assert only_checkpoint(saved)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failure_while_writing_keeps_the_old_one(saved, monkeypatch, error):
    def fail(value, file):
        file.write(b"half")
        raise error("stop")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(error):
        save_checkpoint(saved, {"new": 1}, META)
    assert load_checkpoint(saved).state["n"] == [1, 2.5, "x"]
    assert only_checkpoint(saved)


@pytest.mark.parametrize("step", ["sync_file", "sync_folder", "_exchange", "rename"])
def test_a_disk_error_at_any_step_keeps_the_old_one(saved, monkeypatch, step):
    def fail(*_):
        raise OSError(28, "No space left on device")

    if step == "rename":
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
        original = Path.rename
        monkeypatch.setattr(Path, "rename", lambda s, t: fail() if ".tmp-" in s.name else original(s, t))
    else:
        monkeypatch.setattr(files, step, fail)
        monkeypatch.setattr(checkpoint, step, fail, raising=False)
    with pytest.raises(UserError, match="could not be written: No space left"):
        save_checkpoint(saved, {"new": 1}, META)
    monkeypatch.undo()
    assert load_checkpoint(saved).state["n"] == [1, 2.5, "x"]
    assert only_checkpoint(saved)


def test_between_the_two_renames_the_backup_is_read(saved):
    saved.rename(files.backup_of(saved))
    assert load_checkpoint(saved).meta == META
    save_checkpoint(saved, {"new": 1}, META)
    assert load_checkpoint(saved).state == {"new": 1}
    assert only_checkpoint(saved)


def test_leftovers_of_killed_writers_are_removed(saved):
    (saved.parent / f".{saved.name}.tmp-1-abc").mkdir()
    save_checkpoint(saved, {}, META)
    assert only_checkpoint(saved)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from components.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
save_checkpoint(Path(sys.argv[1]), {"weight": torch.zeros(1_000_000)}, {})
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits")
def test_a_full_disk_is_reported_and_harmless(saved):
    source = Path(checkpoint.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, saved],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert "UserError: checkpoint" in done.stderr.splitlines()[-1], done.stderr
    assert "File too large" in done.stderr
    assert load_checkpoint(saved).meta == META
    assert only_checkpoint(saved)


# --- fitting a checkpoint to a run -------------------------------------------------------------------------------


def test_require_same_lists_every_difference():
    ours = {**META, "algorithm": "vdn", "env_args": {"n_agents": 5}}
    with pytest.raises(UserError) as caught:
        require_same(META, ours, ["algorithm", "env", "env_args"])
    lines = str(caught.value).splitlines()
    assert lines[1:] == [
        '  algorithm: checkpoint has "qmix", this run has "vdn"',
        '  env_args: checkpoint has {"n_agents": 3}, this run has {"n_agents": 5}',
    ]
    require_same({"sizes": [1, 2]}, {"sizes": (1, 2)}, ["sizes"])


def test_load_into_names_the_part_and_the_first_differences():
    saved = torch.nn.Linear(3, 4).state_dict()
    with pytest.raises(UserError, match=r"learner.mixer.*\n  weight: checkpoint has shape \(4, 3\), .*\(2, 5\)"):
        load_into(torch.nn.Linear(5, 2), saved, "learner.mixer")
    with pytest.raises(UserError, match="bias: missing in the checkpoint"):
        load_into(torch.nn.Linear(3, 4), {"weight": saved["weight"]}, "agent")
    many = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(4)])
    with pytest.raises(UserError, match="and 7 more"):
        load_into(many, {**saved}, "agent")
    optimizer = torch.optim.Adam([torch.zeros(1)])
    with pytest.raises(UserError, match="optimizer"):
        load_into(optimizer, {"state": {}, "param_groups": []}, "optimizer")
