"""The command ``report`` from folders on disk to the files that it writes."""

from __future__ import annotations

import json
import shlex

import pytest
from support.result_folders import write_run, write_seeds

from commands.report import main
from components.errors import UserError
from reports.report import write_report
from reports.run_records import find_runs

FILES = {"table.csv", "table.md", "table.tex", "seeds.csv", "curves.csv", "curves.png", "curves.svg", "report.json"}
GOOD = (0.7, 0.8, 0.9, 0.9, 1.0)


@pytest.fixture
def folder(tmp_path):
    write_seeds(tmp_path, GOOD, name="qmix")
    write_seeds(tmp_path, (0.1, 0.2, 0.3, 0.4, 0.5), name="vdn")
    return tmp_path


def document(folder):
    return json.loads((folder / "report.json").read_text())


def test_it_writes_all_files_and_prints_the_markdown_table(folder, capsys):
    main([str(folder), "--baseline", "vdn"])
    assert {path.name for path in (folder / "report").iterdir()} == FILES
    assert capsys.readouterr().out == (folder / "report" / "table.md").read_text()
    assert (folder / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_document_holds_numbers_flags_commits_machine_and_command(folder):
    arguments = [str(folder), "--baseline", "vdn", "--where", "seed=1"]
    main(arguments)
    found = document(folder / "report")
    assert found["command"] == shlex.join(["python", "src/main.py", "report", *arguments])
    assert found["commits"] == ["a" * 40]
    assert found["machines"] == [{"cpu": "a processor", "os": "Linux 6", "python": "3.11.7"}]
    cell = found["cells"][0]
    assert (cell["row"], cell["iqm"]["value"], cell["std"]) == ("qmix", 0.7, None)
    assert [run["seed"] for run in cell["runs"]] == [1]
    assert cell["improvement"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert cell["curve"]["env_steps"] == [0, 10_000, 20_000]
    assert "fewer than 5 seeds" in cell["flags"][0]
    assert "NaN" not in (folder / "report" / "report.json").read_text()


def test_the_numbers_do_not_depend_on_the_order_of_the_runs(folder, tmp_path):
    runs = find_runs(folder)
    there, back = (write_report(given, None, tmp_path / name) for name, given in (("a", runs), ("b", runs[::-1])))
    assert there == back
    for name in FILES - {"curves.png"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_metric_statistic_and_output_are_chosen(tmp_path, capsys):
    write_run(tmp_path, final={"success": 0.5, "return": 12.0})
    main([str(tmp_path), "--metric", "return", "--statistic", "mean", "--output", str(tmp_path / "else" / "where")])
    assert "# return" in capsys.readouterr().out
    assert document(tmp_path / "else" / "where")["statistic"] == "mean"
    assert not (tmp_path / "report").exists()


def test_several_folders_make_one_table_and_count_no_run_twice(tmp_path, capsys):
    write_seeds(tmp_path / "a", GOOD, name="qmix")
    write_seeds(tmp_path / "b", GOOD, name="vdn")
    main([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a" / "sacred")])
    out = capsys.readouterr().out
    assert out.count("(5)") == 2
    assert "more than once" not in out
    assert (tmp_path / "a" / "report" / "table.md").exists()


def test_where_selects_by_typed_values(tmp_path, capsys):
    write_run(tmp_path, lr=0.0005, env_args={"n_agents": 3})
    write_run(tmp_path, seed=2, lr=0.1, env_args={"n_agents": 3})
    write_run(tmp_path, seed=3, lr=0.1, env_args={"n_agents": 5})
    with pytest.raises(UserError, match="different settings"):
        main([str(tmp_path)])
    main([str(tmp_path), "--where", "lr=1e-1", "env_args.n_agents=3"])
    assert [run["seed"] for run in document(tmp_path / "report")["cells"][0]["runs"]] == [2]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("lrr=1", "no run has the key 'lrr'; did you mean 'lr'"),
        ("env_args.n_agent=1", "did you mean 'env_args.n_agents'"),
        ("lr=7", "no run has this value; the runs have lr = 0.0005"),
        ("lr", "expected key=value"),
    ],
)
def test_a_wrong_condition_says_what_is_there(tmp_path, condition, message):
    write_run(tmp_path, env_args={"n_agents": 3})
    with pytest.raises(UserError, match=message):
        main([str(tmp_path), "--where", condition])


def test_unfinished_runs_are_left_out_with_a_note(folder, capsys):
    write_run(folder, seed=8, status="RUNNING")
    write_run(folder, seed=9, status="FAILED")
    (write_run(folder, seed=10) / "config.json").write_text("")
    main([str(folder)])
    out = capsys.readouterr().out
    assert "left out, not completed: 1 BROKEN, 1 FAILED, 1 RUNNING" in out
    assert out.count("(5)") == 2


def test_a_refusal_writes_nothing_and_mixed_goes_on_with_a_flag(folder, capsys):
    write_run(folder, "qmix", seed=6, lr=0.1)
    with pytest.raises(UserError, match="lr = "):
        main([str(folder)])
    assert not (folder / "report").exists()
    main([str(folder), "--mixed"])
    assert "MIXED: qmix in navigation" in capsys.readouterr().out
    assert document(folder / "report")["mixed"] is True


def test_an_earlier_report_is_replaced_and_is_no_run(folder, capsys):
    main([str(folder)])
    first = capsys.readouterr().out
    main([str(folder)])
    assert capsys.readouterr().out == first
    assert {path.name for path in (folder / "report").iterdir()} == FILES


def test_an_unknown_metric_lists_those_that_are_there(folder):
    with pytest.raises(UserError, match="'succ'; did you mean 'success'"):
        main([str(folder), "--metric", "succ"])


def test_an_output_that_is_a_file_is_the_users_error(folder):
    (folder / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written into"):
        main([str(folder), "--output", str(folder / "taken")])
    assert (folder / "taken").read_text() == ""


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "nowhere")])
