"""``evaluate``: the run's own numbers, any other setting, one table in three formats, and nothing half written."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.faults import before_round, interrupted, read, run_in, start

from components import files
from components.checkpoint_folders import checkpoints_in
from main import main

Printed = pytest.CaptureFixture[str]
EPISODES = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LPMARL run whose final evaluation was its first."""
    results = tmp_path_factory.mktemp("run")
    overrides = ["test_nepisode=0", f"final_nepisode={EPISODES}", "save_model_interval=160"]
    assert start(results, *overrides, algorithm="lpmarl") == 0
    return run_in(results)


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def rows_of(tmp_path: Path, *arguments: object) -> list[dict[str, Any]]:
    """The rows of a table that is written as JSON."""
    output = tmp_path / "table.json"
    words = list(map(str, arguments))
    cut = words.index("with") if "with" in words else len(words)
    assert evaluate(*words[:cut], "--output", output, *words[cut:]) == 0
    found: list[dict[str, Any]] = read(output)
    return found


def played(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the episodes alone."""
    about = ("checkpoint", "algorithm", "env_steps", "trained_seed", "seed")
    return {key: value for key, value in row.items() if key not in about and not key.endswith("_se")}


def test_the_runs_own_final_evaluation_is_found_again(run: Path, tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, run, "--episodes", EPISODES)
    expected = {key: value for key, value in read(run / "summary.json")["test"].items() if value is not None}
    assert {key: row[key] for key in expected} == expected
    assert (row["env_steps"], row["trained_seed"], row["seed"], row["episodes"]) == (320, 1, 1, EPISODES)


def test_the_runs_own_first_test_is_found_again(tmp_path: Path) -> None:
    folder = interrupted(tmp_path, rounds=1)
    (row,) = rows_of(tmp_path, checkpoints_in(folder / "resume")[-1], "--episodes", 6)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first = {line["key"]: line["value"] for line in lines if line["t"] == 0 and line["key"].startswith("test_")}
    assert row["env_steps"] == 0
    assert {f"test_{key}_mean": value for key, value in played(row).items() if key != "episodes"} == first


def test_another_seed_or_size_gives_other_numbers(run: Path, tmp_path: Path) -> None:
    (own,) = rows_of(tmp_path, run, "--episodes", EPISODES)
    (seed,) = rows_of(tmp_path, run, "--episodes", EPISODES, "with", "seed=7")
    assert (seed["seed"], seed["trained_seed"]) == (7, 1)
    assert played(seed) != played(own)
    assert rows_of(tmp_path, run, "--episodes", EPISODES, "with", "seed=7") == [seed]
    (size,) = rows_of(tmp_path, run, "--episodes", EPISODES, "with", "env_args.n_agents=7", "env_args.n_landmarks=4")
    assert played(size) != played(own)


def test_checkpoints_and_settings_are_multiplied_into_one_table(run: Path, tmp_path: Path) -> None:
    models = checkpoints_in(run / "checkpoints")
    policies, seeds = ["lp", "lp_distance", "random_feasible"], [1, 7]
    rows = rows_of(
        tmp_path, *models, "--episodes", 4,
        "--vary", f"high_policy={','.join(policies)}", "--vary", "seed=1,7", "with", "redecide=start",
    )  # fmt: skip
    assert len(models) > 1
    assert [(row["checkpoint"], row["high_policy"], row["seed"]) for row in rows] == [
        (str(model), policy, seed) for model, policy, seed in itertools.product(models, policies, seeds)
    ]
    assert all(row["agreement"] == 1.0 for row in rows if row["high_policy"] == "lp_distance")


def test_values_with_commas_can_be_varied(run: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, run, "--episodes", 2, "--vary", "env_args.capacities=[1,2,2],[3,1,1]")
    assert [row["env_args.capacities"] for row in rows] == ["[1,2,2]", "[3,1,1]"]


def test_the_formats_agree(run: Path, tmp_path: Path, capsys: Printed) -> None:
    arguments = [run, "--episodes", 6, "--vary", "high_policy=lp,greedy", "--metrics", "return,agreement"]
    tables = {}
    for suffix in ("json", "csv", "md"):
        capsys.readouterr()
        assert evaluate(*arguments, "--output", tmp_path / f"table.{suffix}") == 0
        tables[suffix] = (tmp_path / f"table.{suffix}").read_text()
    assert capsys.readouterr().out.strip() == tables["md"].strip()
    rows = json.loads(tables["json"])
    lines = list(csv.DictReader(tables["csv"].splitlines()))
    header, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables["md"].splitlines()]
    assert len(rows) == len(lines) == len(cells) == 2
    for row, line, shown in zip(rows, lines, cells, strict=True):
        assert list(row) == list(line)
        assert {key: str(value) for key, value in row.items()} == line
        assert "success" not in row
        for name, text in zip(header, shown, strict=True):
            mean, _, error = text.partition(" ± ")
            if isinstance(row[name], float):
                assert math.isclose(float(mean), row[name], rel_tol=1e-3)
                assert math.isclose(float(error), row[f"{name}_se"], rel_tol=0.1, abs_tol=1e-12)
            else:
                assert mean == str(row[name])


def test_the_runs_folder_is_not_changed(run: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        found = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        return {str(path): (at, path.read_bytes() if path.is_file() else b"") for path, at in found.items()}

    before = state()
    rows_of(tmp_path, run, "--episodes", 4)
    assert state() == before


@pytest.mark.parametrize("existing", [True, False])
def test_an_interruption_leaves_nothing_half_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    output = tmp_path / "table.csv"
    if existing:
        output.write_text("earlier")
    before_round(monkeypatch, 2, interrupt, test_mode=True)
    assert evaluate(run, "--episodes", 2, "--vary", "seed=1,2", "--output", output) == 130
    assert [path.name for path in tmp_path.iterdir()] == (["table.csv"] if existing else [])
    assert not existing or output.read_text() == "earlier"


def test_an_output_that_the_disk_refuses_is_told_after_the_table(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", refuse)
    assert evaluate(run, "--episodes", 2, "--output", tmp_path / "table.csv") == 2
    printed = capsys.readouterr()
    assert "No space left on device" in printed.err
    assert "Traceback" not in printed.err
    assert "| 320 |" in printed.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--metrics", "sucess"], ["unknown metric 'sucess'", "did you mean 'success'", "agreement"]),
        (["--vary", "high_policy"], ["--vary 'high_policy'", "KEY=VALUE,VALUE"]),
        (["--vary", "high_policy="], ["KEY=VALUE,VALUE"]),
        (["--vary", "high_polcy=lp"], ["high_polcy", "unknown key", "did you mean 'high_policy'"]),
        (["--vary", "high_policy=lp,best"], ["high_policy = 'best'", "'lp_distance'"]),
        (["with", "lrr=1"], ["lrr", "unknown key"]),
        (["with", "env_args.n_agents=many"], ["env_args.n_agents = 'many'", "an integer"]),
        (["with", "seed"], ["'seed'", "key=value"]),
        (["with", "graph_hidden_dim=16"], ["does not fit controller", "shape"]),
        (["--episodes", "0"], ["--episodes 0", "at least 1"]),
        (["--episodes", "many"], ["--episodes", "many"]),
        (["--output", "table.xlsx"], ["table.xlsx", ".csv, .json, .md"]),
        (["--output", "nowhere/table.csv"], ["no folder nowhere"]),
        (["--ouput", "table.csv"], ["--ouput"]),
    ],
)
def test_a_mistake_is_named(run: Path, arguments: list[str], parts: list[str], capsys: Printed) -> None:
    cut = arguments.index("with") if "with" in arguments else len(arguments)
    episodes = [] if "--episodes" in arguments else ["--episodes", "2"]
    assert evaluate(run, *arguments[:cut], *episodes, *arguments[cut:]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "Traceback" not in printed
    for part in parts:
        assert part in printed


def test_a_row_that_cannot_be_played_is_told_before_any_is_and_an_unknown_metric_after_the_table(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    assert evaluate(run, "--episodes", 2, "--metrics", "sucess") == 2
    printed = capsys.readouterr()
    assert "unknown metric 'sucess'" in printed.err
    assert "| 320 |" in printed.out
    monkeypatch.setattr("commands.evaluate.greedy_episodes", lambda *_: pytest.fail("a row was played"))
    assert evaluate(run, "--episodes", 2, "--vary", "graph_hidden_dim=32,16") == 2
    assert "does not fit controller" in capsys.readouterr().err


def test_a_size_that_a_checkpoint_cannot_take_is_told_with_the_reason(tmp_path: Path, capsys: Printed) -> None:
    words = ["t_max=100", "test_nepisode=1", "final_nepisode=1", "batch_size_run=2", "replay_nepisode=0"]
    words = ["--config=qmix", "--env-config=constrained_navigation", "with", *words, f"local_results_path={tmp_path}"]
    assert main(words) == 0
    run = tmp_path / "sacred" / "constrained_navigation" / "qmix" / "1"
    assert evaluate(run, "--episodes", 2, "with", "env_args.n_agents=7") == 2
    printed = capsys.readouterr().err
    assert "agent.fc1.weight: checkpoint has shape (64, 31), this run has shape (64, 37)" in printed
    assert "env_args.n_agents = 7 (trained with 5). An agent that reads `obs` plays at the size" in printed
    assert "n_landmarks" not in printed


def test_folders_without_checkpoints_are_described(run: Path, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pymarl").mkdir()
    (tmp_path / "pymarl" / "agent.th").touch()
    for name, words in {
        "nowhere": "no such folder",
        "empty": "there is: nothing",
        "pymarl": "agent.th",
    }.items():
        assert evaluate(tmp_path / name) == 2
        printed = capsys.readouterr().err
        assert words in printed
        assert str(tmp_path / name) in printed
    assert evaluate(run.parent) == 2
    assert "there is: 1" in capsys.readouterr().err
    assert evaluate() == 2
    assert "PATH" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path: Path, capsys: Printed) -> None:
    assert start(tmp_path / "results", "save_model_interval=160") == 0
    folder = run_in(tmp_path / "results")
    newest, before = checkpoints_in(folder / "checkpoints")[:2]
    (newest / "tensors.pt").write_bytes(b"")
    capsys.readouterr()
    (row,) = rows_of(tmp_path, folder, "--episodes", 2)
    printed = capsys.readouterr().err
    assert str(newest / "tensors.pt") in printed
    assert f"Using the checkpoint before it: {before}" in printed
    assert row["env_steps"] == int(before.name)
