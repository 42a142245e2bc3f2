"""Which runs may stand in one table."""

from __future__ import annotations

import pytest
from support.result_folders import write_run, write_seeds

from components.errors import UserError
from reports.agreement import LAST_WITHOUT_VERSION
from reports.comparable import Comparison, compare
from reports.run_records import find_runs

GOOD = (0.1, 0.2, 0.3, 0.4, 0.5)


def compared(results, **options) -> Comparison:
    return compare(find_runs(results), **options)


def notes(comparison: Comparison) -> str:
    return "\n".join(note.text for note in comparison.notes)


def test_runs_of_one_experiment_are_a_cell_without_remarks(tmp_path):
    write_seeds(tmp_path, GOOD)
    comparison = compared(tmp_path)
    [(cell, runs)] = comparison.cells.items()
    assert (cell[0].title, cell[1].title) == ("qmix", "navigation")
    assert [run.seed for run in runs] == [1, 2, 3, 4, 5]
    assert comparison.notes == ()


def test_the_order_of_the_runs_does_not_matter(tmp_path):
    for name in ("vdn", "qmix"):
        for size in (10, 3):
            write_seeds(tmp_path, GOOD[:3], name=name, env_args={"n_agents": size})
    runs = find_runs(tmp_path)
    expected = compare(runs)
    assert compare(runs[::-1]) == compare(runs[5:] + runs[:5]) == expected
    assert [row.title for row in expected.rows] == ["qmix", "vdn"]


def test_a_column_is_named_by_the_arguments_that_differ_sizes_in_the_order_of_numbers(tmp_path):
    for size in (10, 3):
        write_run(tmp_path, env_args={"n_agents": size, "radius": 0.1, "rewards": "sparse"})
    write_run(tmp_path, env="matrix_game", env_args={"payoff": None})
    titles = [column.title for column in compared(tmp_path).columns]
    assert titles == ["matrix_game", "navigation n_agents=3", "navigation n_agents=10"]


def test_a_label_makes_a_row_of_its_own(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, label="slow", lr=0.1)
    assert [row.title for row in compared(tmp_path).rows] == ["qmix", "qmix_slow"]


def test_seeds_with_different_settings_are_refused_and_told(tmp_path):
    write_run(tmp_path, seed=1)
    write_run(tmp_path, seed=2, lr=0.1, mixer="vdn")
    with pytest.raises(UserError) as error:
        compared(tmp_path)
    message = str(error.value)
    assert "qmix in navigation" in message
    assert "lr = 0.0005 (qmix seed 1), 0.1 (qmix seed 2)" in message
    assert "mixer = absent (qmix seed 1), vdn (qmix seed 2)" in message
    assert "label=" in message
    assert "--mixed" in message


def test_mixed_shows_them_with_a_flag(tmp_path):
    write_run(tmp_path, seed=1)
    write_run(tmp_path, seed=2, lr=0.1)
    comparison = compared(tmp_path, mixed=True)
    [(cell, runs)] = comparison.cells.items()
    assert len(runs) == 2
    flag = next(note for note in comparison.notes if note.text.startswith("MIXED"))
    assert flag.at == (cell,)
    assert "lr = " in flag.text


@pytest.mark.parametrize(
    "free",
    [
        {"label": ""},
        {"local_results_path": "elsewhere"},
        {"use_tensorboard": True},
        {"torch_threads": 2},
        {"use_cuda": True},
        {"save_model": False},
        {"save_model_interval": 7},
        {"checkpoint_minutes": 1.0},
    ],
    ids=str,
)
def test_settings_that_change_no_result_may_differ(tmp_path, free):
    write_run(tmp_path, seed=1)
    write_run(tmp_path, seed=2, **free)
    [runs] = compared(tmp_path).cells.values()
    assert len(runs) == 2


def test_each_seed_may_start_from_its_own_checkpoint_but_not_some_of_them_only(tmp_path):
    write_run(tmp_path, seed=1, checkpoint_path="a")
    write_run(tmp_path, seed=2, checkpoint_path="b")
    assert "training started from a checkpoint" in notes(compared(tmp_path))
    write_run(tmp_path, seed=3)
    with pytest.raises(UserError, match="checkpoint_path = given"):
        compared(tmp_path)


@pytest.mark.parametrize("key", ["test_nepisode", "final_nepisode", "test_interval"])
def test_algorithms_tested_by_different_rules_are_refused(tmp_path, key):
    write_run(tmp_path, "qmix")
    write_run(tmp_path, "vdn", **{key: 7})
    with pytest.raises(UserError, match=rf"not tested alike: {key} = .*\(qmix seed 1\), 7 \(vdn seed 1\)"):
        compared(tmp_path)
    assert "MIXED" in notes(compared(tmp_path, mixed=True))


def test_different_rules_in_different_environments_are_fine(tmp_path):
    write_run(tmp_path, env="navigation")
    write_run(tmp_path, env="matrix_game", final_nepisode=7)
    assert len(compared(tmp_path).cells) == 2


def test_runs_of_different_versions_of_the_environment_are_refused(tmp_path):
    write_run(tmp_path, "qmix", summary={"env_version": 1})
    write_run(tmp_path, "vdn", summary={"env_version": 2})
    with pytest.raises(UserError, match=r"env_version = 1 \(qmix seed 1\), 2 \(vdn seed 1\)"):
        compared(tmp_path)
    assert "MIXED" in notes(compared(tmp_path, mixed=True))


def test_other_code_of_the_same_version_may_be_compared_and_is_told(tmp_path):
    write_run(tmp_path, "qmix", summary={"env_version": 1})
    write_run(tmp_path, "vdn", summary={"env_version": 1}, commit={"commit": "b" * 40, "env_commit": "f" * 40})
    write_run(tmp_path, "iql", commit={"env_commit": LAST_WITHOUT_VERSION})
    found = compared(tmp_path)
    assert len(found.cells) == 3
    assert "runs of different commits" in notes(found)


def test_without_versions_runs_on_different_code_of_the_environment_are_refused(tmp_path):
    write_run(tmp_path, "qmix")
    write_run(tmp_path, "vdn", commit={"env_commit": "f" * 40})
    with pytest.raises(
        UserError, match=r"different versions of the environment: env_commit = eeee\w+ \(qmix seed 1\), ffff"
    ):
        compared(tmp_path)
    assert "MIXED" in notes(compared(tmp_path, mixed=True))


@pytest.mark.parametrize("missing", ["", None, "unknown"])
def test_an_unknown_commit_of_the_environment_is_flagged(tmp_path, missing):
    write_run(tmp_path, "qmix")
    write_run(tmp_path, "vdn", commit={"env_commit": missing})
    flag = next(note for note in compared(tmp_path).notes if "is unknown" in note.text)
    assert [cell[0].title for cell in flag.at] == ["vdn"]


@pytest.mark.parametrize(
    ("commit", "text"),
    [
        ({"dirty": True}, "the code had uncommitted changes"),
        ({"dirty": True, "env_dirty": True}, "the environment's code had uncommitted changes"),
        ({"commit": "b" * 40}, "runs of different commits: commit = aaaa"),
    ],
)
def test_other_commits_and_changes_are_flagged(tmp_path, commit, text):
    write_run(tmp_path, "qmix")
    write_run(tmp_path, "vdn", commit=commit)
    assert text in notes(compared(tmp_path))


def test_few_seeds_are_flagged_where_they_are(tmp_path):
    write_seeds(tmp_path, GOOD, name="qmix")
    write_seeds(tmp_path, GOOD[:4], name="vdn")
    [note] = compared(tmp_path).notes
    assert "fewer than 5 seeds" in note.text
    assert [cell[0].title for cell in note.at] == ["vdn"]


def test_different_lengths_of_training_are_flagged(tmp_path):
    write_run(tmp_path, "qmix")
    write_run(tmp_path, "vdn", t_max=50_000)
    assert "different numbers of environment steps: t_max = 20000 (qmix), 50000 (vdn)" in notes(compared(tmp_path))


@pytest.mark.parametrize(("updates", "told"), [(109, False), (112, True)])
def test_update_ratios_are_told_from_a_tenth_on(tmp_path, updates, told):
    write_run(tmp_path, "qmix", summary={"updates": 100})
    write_run(tmp_path, "vdn", summary={"updates": updates})
    assert ("updates per environment step differ: 0.005 (qmix), 0.0056 (vdn)" in notes(compared(tmp_path))) == told


def test_a_search_is_told_briefly(tmp_path):
    labels = [f"qmix-lr_{value}" for value in range(6)]
    for label in labels:
        write_run(tmp_path, "qmix", label=label, summary={"updates": 100})
    write_run(tmp_path, "vdn", label="slow", summary={"updates": 10})
    found = compared(tmp_path)
    # What a set's grid calls its settings begins with the algorithm already.
    assert [row.title for row in found.rows] == [*labels, "vdn_slow"]
    told = f"0.005 ({', '.join(labels[:4])} and 2 more), 0.0005 (vdn_slow)"
    assert f"updates per environment step differ: {told}" in notes(found)


def test_settings_that_differ_between_the_environments_of_a_row_are_told(tmp_path):
    write_run(tmp_path, env="navigation")
    write_run(tmp_path, env="matrix_game", lr=0.1)
    assert "qmix: its settings differ between environments: lr = 0.1 (matrix_game), 0.0005 (navigation)" in notes(
        compared(tmp_path)
    )


def test_of_a_repeated_seed_the_newest_run_is_taken_and_told(tmp_path):
    write_seeds(tmp_path, GOOD)
    newest = write_run(tmp_path, seed=2, final={"success": 0.9})
    comparison = compared(tmp_path)
    [runs] = comparison.cells.values()
    assert [run.seed for run in runs] == [1, 2, 3, 4, 5]
    assert runs[1].folder == newest
    assert "run more than once, the newest is taken: seed 2" in notes(comparison)


def test_unfinished_and_broken_runs_are_left_out_and_counted(tmp_path):
    write_seeds(tmp_path, GOOD)
    for status in ("FAILED", "INTERRUPTED", "INTERRUPTED"):
        write_run(tmp_path, seed=9, status=status)
    (write_run(tmp_path, seed=9) / "run.json").write_text("{")
    (write_run(tmp_path, seed=9) / "summary.json").unlink()
    comparison = compared(tmp_path)
    [runs] = comparison.cells.values()
    assert len(runs) == 5
    assert "left out, not completed: 2 BROKEN, 1 FAILED, 2 INTERRUPTED" in notes(comparison)


def test_without_a_finished_run_there_is_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="there are no runs"):
        compared(tmp_path)
    write_run(tmp_path, status="FAILED")
    with pytest.raises(UserError, match="1 FAILED"):
        compared(tmp_path)
