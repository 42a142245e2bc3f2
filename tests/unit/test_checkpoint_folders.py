"""Which of a run's checkpoints is used, and which are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.checkpoint import VERSION, NewerVersion, load_checkpoint, save_checkpoint
from components.checkpoint_folders import (
    checkpoints_in,
    drop_others,
    load_model,
    model_folder,
    newest,
    newest_full,
    resume_folder,
)
from components.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Models at 9, 100 and 1000 steps, full states at 500 and 2000."""
    for steps in (9, 100, 1000):
        save_checkpoint(model_folder(tmp_path, steps), {"steps": steps}, {"env_steps": steps})
    for steps in (500, 2000):
        save_checkpoint(resume_folder(tmp_path, steps), {"steps": steps}, {"env_steps": steps})
    return tmp_path


def damage(folder: Path) -> None:
    (folder / "state.json").write_bytes(b"")


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_checkpoints_are_ordered_by_steps_and_other_entries_passed_over(run: Path) -> None:
    models = run / "checkpoints"
    (models / ".1000.tmp-1-abc").mkdir()
    (models / "notes").mkdir()
    (models / "5000").touch()
    assert names(checkpoints_in(models)) == ["1000", "100", "9"]
    assert checkpoints_in(run / "nowhere") == []
    assert checkpoints_in(models / "5000") == []


def test_the_newest_model_or_full_state_is_loaded(run: Path) -> None:
    warnings: list[str] = []
    folder, checkpoint = load_model(run, warnings.append)
    assert (folder, checkpoint.state) == (run / "resume" / "2000", {"steps": 2000})
    shutil.rmtree(run / "resume")
    assert load_model(run, warnings.append)[0] == run / "checkpoints" / "1000"
    assert load_model(run / "checkpoints" / "9", warnings.append)[1].state == {"steps": 9}
    assert warnings == []


def test_damaged_ones_are_passed_over_and_each_is_named(run: Path) -> None:
    damage(run / "resume" / "2000")
    damage(run / "checkpoints" / "1000")
    warnings: list[str] = []
    assert load_model(run, warnings.append)[0] == run / "resume" / "500"
    assert [Path(warning.split(" ")[0]).parent.name for warning in warnings] == ["2000", "1000"]
    assert all(f"Using the checkpoint before it: {run / 'resume' / '500'}" in warning for warning in warnings)


def test_a_damaged_one_that_was_named_is_not_replaced_by_another(run: Path) -> None:
    damage(run / "checkpoints" / "1000")
    with pytest.raises(UserError, match=r"state\.json is truncated"):
        load_model(run / "checkpoints" / "1000", lambda text: None)


def test_nothing_to_load_says_what_is_there(run: Path, tmp_path: Path) -> None:
    for folder in [*checkpoints_in(run / "checkpoints"), *checkpoints_in(run / "resume")]:
        damage(folder)
    warnings: list[str] = []
    with pytest.raises(UserError, match=r"no checkpoint in .*there is: checkpoints, resume"):
        load_model(run, warnings.append)
    assert len(warnings) == 5
    with pytest.raises(UserError, match="no such folder"):
        load_model(run / "nowhere", warnings.append)


def test_a_newer_one_is_refused_not_passed_over(run: Path) -> None:
    path = run / "resume" / "2000" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": VERSION + 1}))
    with pytest.raises(NewerVersion, match="update lpmarl"):
        load_model(run, lambda text: None)
    with pytest.raises(NewerVersion):
        newest_full(run, load_checkpoint, lambda text: None)


def test_the_newest_full_state_that_passes_the_check_is_found(run: Path) -> None:
    warnings: list[str] = []
    assert newest_full(run, lambda folder: None, warnings.append) == run / "resume" / "2000"

    def refuse(folder: Path) -> None:
        if folder.name == "2000":
            raise UserError("no metrics")

    assert newest_full(run, refuse, warnings.append) == run / "resume" / "500"
    assert warnings == [f"no metrics. Using the checkpoint before it: {run / 'resume' / '500'}"]
    assert newest_full(run / "checkpoints", refuse, warnings.append) is None
    assert newest([], load_checkpoint, warnings.append) is None
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("steps", "kept"),
    [(400, ["400", "300"]), (300, ["300", "200"]), (100, ["100"]), (50, [])],
    ids=["newest", "after a fallback", "from the beginning", "none of them"],
)
def test_two_full_states_up_to_the_present_one_are_kept(tmp_path: Path, steps: int, kept: list[str]) -> None:
    for number in (100, 200, 300, 400):
        resume_folder(tmp_path, number).mkdir(parents=True)
        model_folder(tmp_path, number).mkdir(parents=True)
    drop_others(tmp_path, steps)
    assert names(checkpoints_in(tmp_path / "resume")) == kept
    assert len(checkpoints_in(tmp_path / "checkpoints")) == 4
