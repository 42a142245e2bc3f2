"""The tables and figures: what they need exists, a small one is made for real, and what is missing is named."""

from __future__ import annotations

import csv
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

import commands.reproduce as reproduce
from components.config import load_config
from components.errors import UserError
from launchers.experiment_set import find_set, read_set
from launchers.jobs import Job, make_jobs, matching_run
from launchers.tasks import Task, make_tasks
from main import main
from reports.run_records import find_runs
from reproduction.catalog import ARTIFACTS, TABLES
from reproduction.paper import FILE, read_paper_numbers
from reproduction.points import Measure, Point, Store
from reproduction.specs import EPISODES, Source

SMALLEST = ("t_max=600", "test_interval=300", "log_interval=300", "test_nepisode=4", "final_nepisode=4")
# All but the largest, which are made of the same parts as the others: their runs alone would take minutes.
MADE = [name for name in ARTIFACTS if name not in ("table3", "table6", "table1_tuned", "fights")]
ISSUE = {"table1", "table2", "table3", "table6", "fig8", "fig2", "fig3", "fig5", "fig6", "fig7"}


def all_sources() -> list[Source]:
    return list(dict.fromkeys(source for artifact in ARTIFACTS.values() for source in artifact.sources))


def test_everything_of_the_paper_can_be_asked_for() -> None:
    assert set(ARTIFACTS) >= ISSUE


def test_every_source_names_runs_that_its_set_makes_and_settings_that_they_take(tmp_path: Path) -> None:
    sets = {source.runs.experiment_set for source in all_sources()}
    jobs = {
        (name, job.algorithm, job.environment): job
        for name in sets
        for job in make_jobs(read_set(find_set(name)), tmp_path, ())
    }
    for source in all_sources():
        job = jobs[source.runs.experiment_set, source.runs.algorithm, source.runs.environment]
        given = {key: value for key, value in job.values.items() if key not in ("env_args", "mac", "agent")}
        assert given["final_nepisode"] == 1000
        assert len([j for j in jobs.values() if j.algorithm == job.algorithm]) >= 1
    checked = {source.overrides for source in all_sources()}
    for overrides in checked:
        small = [text for text in overrides if "assignment_cost" not in text and "capacities" not in text]
        load_config("lpmarl", "constrained_navigation", small)


def test_every_set_of_the_tables_has_five_seeds() -> None:
    names = {source.runs.experiment_set for source in all_sources()}
    assert {name: len(read_set(find_set(name)).seeds) for name in names} == dict.fromkeys(names, 5)


def test_the_papers_numbers_name_cells_that_exist_and_nothing_is_made_up() -> None:
    paper = read_paper_numbers(TABLES)
    assert paper.find("table1", "success", "lpmarl", "m3_n5") == 85.8
    assert paper.shown("table1", "success", "greedy", "m3_n5") == "–"
    assert paper.shown("fig6", "imitation_accuracy", "dec_lpmarl", "dense_n3") == "> 90"
    # What is known of the paper in this repository; a new number needs the paper at hand.
    assert len(paper.values) == 8


def test_a_wrong_name_among_the_papers_numbers_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "paper_numbers.yaml"
    path.write_text(
        FILE.read_text().replace("  min_distance:\n    lpmarl: {m3_n5", "  min_distance:\n    lpmrl: {m3_n5", 1)
    )
    with pytest.raises(UserError, match=r"paper_numbers.yaml:\d+: unknown name 'lpmrl'; did you mean 'lpmarl'"):
        read_paper_numbers(TABLES, path)


def test_an_unknown_table_lists_the_valid_ones() -> None:
    with pytest.raises(UserError) as caught:
        reproduce.main(["tabel1"])
    message = str(caught.value)
    assert "unknown table or figure 'tabel1'; did you mean 'table1'" in message
    assert all(name in message for name in (*ARTIFACTS, "all"))


@pytest.mark.parametrize("words", [["table1", "--jobs", "0"], ["table1", "--retries", "-1"], []])
def test_wrong_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError):
        reproduce.main(words)


def test_what_cannot_be_made_in_the_game_says_so() -> None:
    with pytest.raises(UserError, match="table1 cannot be made with --env=sc2, which takes table3"):
        reproduce.main(["table1", "--env=sc2"])
    assert reproduce.read_request(["table3", "--env=sc2"]).artifacts[0].name == "table3_sc2"
    assert reproduce.read_request(["table3"]).artifacts[0].name == "table3"


def test_without_runs_everything_that_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    where = ["--results", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError) as caught:
        reproduce.main(["table1", "--no-run", *where])
    message = str(caught.value)
    for seed in range(1, 6):
        assert re.search(rf"constrained: no_lp_m5_n7_seed{seed} is missing\n +python .*main\.py .*seed={seed}", message)
    # What can be rendered is: the paper's numbers stand alone.
    assert "85.8" in (tmp_path / "out" / "table1.md").read_text()


def in_this_process(jobs: Sequence[Job], results: Path, *_: int) -> list[Task]:
    """``run_missing`` without a process for each run: they would spend nearly all of their time on imports."""
    found = find_runs(results / "sacred") if results.is_dir() else []
    for job in jobs:
        if matching_run(job, found) is None:
            assert main(list(job.arguments)) == 0
    return make_tasks(jobs, results, find_runs(results / "sacred"))


def measure_in_this_process(
    points: Sequence[Point], store: Store, measure: Measure, _: int, commit: dict[str, Any]
) -> dict[str, str]:
    """``measure_missing`` without processes."""
    for point in points:
        store.keep(point, measure(point.kind, point.run.folder, point.overrides, point.count), commit)
    return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and figures from small real runs."""
    folder = tmp_path_factory.mktemp("reproduced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "run_missing", in_this_process)
        patch.setattr(reproduce, "measure_missing", measure_in_this_process)
        reproduce.main(words_of(folder, *MADE))
    return folder


def words_of(folder: Path, *names: str) -> list[str]:
    where = ["--results", str(folder / "runs"), "--output", str(folder / "out"), "--jobs", "2"]
    return [*names, "--quick", *where, "with", *SMALLEST]


@pytest.mark.slow
def test_all_in_its_smallest_form_runs_measures_and_renders_everything(made: Path) -> None:
    written = {path.name for path in (made / "out").iterdir()}
    for name in MADE:
        assert f"{name}.md" in written
        assert {f"{name}.png", f"{name}.svg", f"{name}.csv", f"{name}_curves.csv", f"{name}_bars.png"} & written
    for path in (made / "out").glob("*.png"):
        assert imread(path)[..., :3].std() > 0.02, f"{path.name} is blank"
    for path in (made / "out").glob("*.md"):
        text = path.read_text()
        assert "quick: one seed and short runs, not a result" in text
        assert "python src/main.py reproduce table1 table2" in text
        assert "missing |" not in text
    assert str(Path.cwd()) not in (made / "out" / "table1.md").read_text()
    lines = list(csv.DictReader((made / "out" / "table1.csv").open()))
    [ours] = [line for line in lines if (line["metric"], line["row"], line["column"]) == ("success", "lpmarl", "m3_n5")]
    assert (ours["paper"], ours["seed"]) == ("85.8", "1")
    assert 0 <= float(ours["value"]) <= 100
    for path in (made / "out").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_call_runs_and_measures_nothing_anew(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("called again")

    before = {path: path.stat().st_mtime_ns for path in (made / "runs").rglob("metrics.jsonl")}
    monkeypatch.setattr(reproduce, "measure_missing", refuse)
    reproduce.main(words_of(made, "fig2", "beyond"))
    assert {path: path.stat().st_mtime_ns for path in (made / "runs").rglob("metrics.jsonl")} == before
    runs = {source.runs for name in MADE for source in ARTIFACTS[name].sources}
    assert len(before) == len({(own.experiment_set, own.algorithm, own.environment) for own in runs})


@pytest.mark.slow
def test_runs_and_measurements_have_processes_of_their_own(tmp_path: Path) -> None:
    reproduce.main(words_of(tmp_path, "fig2"))
    assert (tmp_path / "out" / "fig2.png").is_file()
    [run] = find_runs(tmp_path / "runs" / "constrained" / "sacred")
    assert (run.status, run.algorithm) == ("COMPLETED", "lpmarl")


@pytest.mark.slow
def test_a_missing_measurement_is_named_and_the_rest_is_rendered(made: Path, tmp_path: Path) -> None:
    for path in (made / "runs" / "measurements").iterdir():
        path.rename(tmp_path / path.name)
    try:
        with pytest.raises(UserError) as caught:
            reproduce.main(["--no-run", *words_of(made, "fig2", "crowded")])
    finally:
        for path in tmp_path.iterdir():
            path.rename(made / "runs" / "measurements" / path.name)
    message = str(caught.value)
    assert re.search(r"decisions of .* is missing: python src/main\.py reproduce .*fig2", message)
    assert "fig2 was not made" in message
    assert (made / "out" / "crowded.md").is_file()


@pytest.mark.slow
def test_a_measurement_belongs_to_its_run_setting_and_number_of_episodes(made: Path) -> None:
    first, second = find_runs(made / "runs" / "crowded" / "sacred")[:2]
    points = [
        Point(first, EPISODES, (), 10),
        Point(second, EPISODES, (), 10),
        Point(first, EPISODES, ("redecide=start",), 10),
        Point(first, EPISODES, (), 11),
    ]
    assert len({point.key for point in points}) == 4
    store = Store(made / "elsewhere")
    assert store.read(points[0]) is None
    store.keep(points[0], {"success": 0.5}, {"commit": "abc"})
    assert store.read(points[0]) == {"success": 0.5, "commit": {"commit": "abc"}}
    [kept] = store.folder.iterdir()
    kept.write_text("{ half a file")
    assert store.read(points[0]) is None


def test_published_measurements_are_found_again(tmp_path: Path) -> None:
    """They are kept under names made of the runs' configurations: what changes those names loses them all."""
    published = Path(__file__).parents[2] / "results/published/combat"
    with tarfile.open(published / "records.tar.xz") as records:
        records.extractall(tmp_path / "runs", filter="data")
    where = ["--results", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    reproduce.main(["assigners", "--no-run", *where])
    header = "| setting | LPMARL's scores"
    grids = [(folder / "assigners.md").read_text().split(header)[1] for folder in (published, tmp_path / "out")]
    assert grids[0].split("## Where")[0] == grids[1].split("## Where")[0]
