import json
import math
import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest
from support.result_folders import write_run

from commands.runs import main
from components.errors import UserError
from reports.embedding import script_json
from reports.run_records import find_runs
from reports.runs_page import TRAINING_CURVES, page_data, runs_page, write_runs_page
from reports.thinning import thin
from utils.run_lock import RunLock


def data_of(results: Path) -> dict:
    return page_data(find_runs(results), results, results)


def only_run(results: Path) -> dict:
    [run] = data_of(results)["runs"]
    return run


def embedded(html: str) -> dict:
    [text] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def metric_line(key: str, t: object, value: object) -> str:
    return json.dumps({"key": key, "t": t, "value": value}) + "\n"


# ---- one run


def test_a_finished_run_is_shown_with_what_its_files_say(tmp_path):
    folder = write_run(
        tmp_path,
        "vdn",
        "navigation",
        label="wide",
        seed=3,
        env_args={"n_agents": 5, "capacities": [1, 2]},
        final={"success": 0.25},
        summary={
            "env_steps": 20_016,
            "cpu_seconds": 12.5,
            "env_steps_per_second": 900.0,
            "test": {"success": 0.25, "agreement": None},
        },
        commit={"commit": "abc123", "dirty": True},
    )
    (folder / "replay.html").write_text("a replay")
    (folder / "checkpoints" / "20016").mkdir(parents=True)
    run = only_run(tmp_path)
    assert run["path"] == "sacred/navigation/vdn_wide/1"
    assert (run["algorithm"], run["label"], run["env"], run["seed"]) == ("vdn", "wide", "navigation", 3)
    assert (run["status"], run["problem"]) == ("COMPLETED", "")
    assert run["config"]["env_args.n_agents"] == 5
    assert run["config"]["env_args.capacities"] == [1, 2]
    assert run["final"] == {"success": 0.25}, "a metric that does not apply is not shown"
    assert (run["env_steps"], run["t_max"], run["cpu_seconds"], run["speed"]) == (20_016, 20_000, 12.5, 900.0)
    assert run["commit"]["commit"] == "abc123"
    assert run["commit"]["dirty"] is True
    assert "replay.html" in run["files"]
    assert run["checkpoints"] == [20_016]


def test_the_time_of_a_run_ends_at_its_stop_or_at_its_last_sign_of_life(tmp_path):
    for number, end in enumerate(("stop_time", "heartbeat"), start=1):
        folder = write_run(tmp_path, seed=number)
        record = json.loads((folder / "run.json").read_text())
        times = {"start_time": "2026-01-01T00:00:00", "heartbeat": "2026-01-01T00:01:00.5"}
        if end == "stop_time":
            times["stop_time"] = "2026-01-01T00:02:00"
        (folder / "run.json").write_text(json.dumps(record | times))
    assert [run["seconds"] for run in data_of(tmp_path)["runs"]] == [120.0, 60.5]


def test_machines_and_packages_are_stored_once(tmp_path):
    for _ in range(3):
        write_run(tmp_path)
    data = data_of(tmp_path)
    assert len(data["machines"]) == len(data["packages"]) == 1
    assert data["machines"][data["runs"][2]["machine"]]["python_version"] == "3.11.7"


def test_settings_that_seeds_may_differ_in_are_told_apart(tmp_path):
    write_run(tmp_path, local_results_path="/somewhere", save_model=True)
    kept = set(data_of(tmp_path)["bookkeeping"])
    assert {"seed", "local_results_path", "save_model"} <= kept
    assert not kept & {"lr", "t_max", "name"}


# ---- runs that ended badly or were half written


def test_a_dead_run_says_which_process_is_gone_and_how_to_resume_it(tmp_path):
    folder = write_run(tmp_path / "my results", status="RUNNING")
    (folder / "run.lock").write_text(json.dumps({"pid": 4242, "host": socket.gethostname()}))
    run = only_run(tmp_path / "my results")
    assert run["status"] == "DEAD"
    assert "4242" in run["problem"]
    assert run["resume"] == f"python src/main.py resume '{folder}'", "quoted: the path holds a space"


def test_a_run_whose_lock_is_held_is_running_and_not_to_be_resumed(tmp_path):
    folder = write_run(tmp_path, status="RUNNING")
    with RunLock(folder):
        run = only_run(tmp_path)
    assert run["status"] == "RUNNING"
    assert "resume" not in run


@pytest.mark.parametrize("status", ["INTERRUPTED", "FAILED"])
def test_a_run_that_ended_early_can_be_resumed_from_its_newest_full_state(tmp_path, status):
    folder = write_run(tmp_path, status=status)
    for steps in ("5000", "10000", "not-a-checkpoint"):
        (folder / "resume" / steps).mkdir(parents=True)
    run = only_run(tmp_path)
    assert run["resume"].startswith("python src/main.py resume ")
    assert run["full_states"] == [5000, 10_000]


def test_a_finished_run_is_not_to_be_resumed(tmp_path):
    write_run(tmp_path)
    assert "resume" not in only_run(tmp_path)


def test_a_failed_run_shows_its_error_and_its_traceback(tmp_path):
    folder = write_run(tmp_path, status="FAILED")
    record = json.loads((folder / "run.json").read_text())
    trace = ["Traceback:\n", "  line 7\n", "ValueError: <b>boom</b>\n"]
    (folder / "run.json").write_text(json.dumps(record | {"fail_trace": trace}))
    run = only_run(tmp_path)
    assert run["problem"] == "ValueError: <b>boom</b>"
    assert run["trace"] == "".join(trace)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", ""),
        ("run.json", "{}"),
        ("run.json", "[1]"),
        ("config.json", '{"env_args": {"n_'),
        ("config.json", "\x00\x00"),
    ],
)
def test_a_run_with_an_unreadable_record_is_broken_and_keeps_its_curves(tmp_path, name, content):
    folder = write_run(tmp_path, final={"success": 0.5})
    (folder / name).write_text(content)
    run = only_run(tmp_path)
    assert run["status"] == "BROKEN"
    assert name in run["problem"]
    assert (run["algorithm"], run["env"]) == ("qmix", "navigation"), "from the names of its folders"
    assert run["curves"]["test_success_mean"][1] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("run.json", {"start_time": 5, "stop_time": "yesterday"}),
        ("run.json", {"experiment": "none"}),
        ("run.json", {"host": [1]}),
        ("summary.json", {"env_steps": "many"}),
        ("summary.json", {"test": [1, 2]}),
    ],
)
def test_records_of_another_shape_do_not_keep_the_page_from_being_written(tmp_path, name, changes):
    write_run(tmp_path, "iql")
    folder = write_run(tmp_path, "qmix")
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | changes))
    sound, odd = data_of(tmp_path)["runs"]
    assert sound["status"] == "COMPLETED"
    assert odd["status"] == "BROKEN"
    assert "is not as a run writes it" in odd["problem"]
    runs_page(find_runs(tmp_path), tmp_path)


def test_a_run_without_metrics_and_summary_is_shown(tmp_path):
    folder = write_run(tmp_path)
    (folder / "metrics.jsonl").unlink()
    (folder / "summary.json").unlink()
    run = only_run(tmp_path)
    assert (run["curves"], run["final"], run["env_steps"]) == ({}, {}, 0)


def test_without_a_summary_steps_and_time_come_from_the_metrics(tmp_path):
    folder = write_run(tmp_path, status="INTERRUPTED")
    (folder / "metrics.jsonl").write_text(metric_line("cpu_seconds", 0, 2.0) + metric_line("cpu_seconds", 9000, 7.5))
    run = only_run(tmp_path)
    assert (run["env_steps"], run["cpu_seconds"]) == (9000, 7.5)


def test_a_partial_last_line_of_the_metrics_is_ignored(tmp_path):
    folder = write_run(tmp_path, final={"success": 0.5})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"key": "test_success_mean", "t": 30000, "va')
    assert only_run(tmp_path)["curves"]["test_success_mean"][1] == [0.0, 0.5]


@pytest.mark.parametrize("line", [metric_line("test_success_mean", 1, "high"), metric_line("loss", "soon", 1.0)])
def test_lines_that_are_no_metrics_do_not_keep_the_page_from_being_written(tmp_path, line):
    folder = write_run(tmp_path)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line)
    assert only_run(tmp_path)["path"].endswith("/1")


# ---- curves


def curves_of(tmp_path: Path, lines: list[tuple[str, int, float | None]]) -> dict[str, list[tuple[int, float | None]]]:
    folder = write_run(tmp_path)
    (folder / "metrics.jsonl").write_text("".join(metric_line(*line) for line in lines))
    run = only_run(tmp_path)
    return {key: list(zip(run["steps"][index], values, strict=True)) for key, (index, values) in run["curves"].items()}


def test_curves_keep_steps_values_and_gaps(tmp_path):
    lines = [("test_return_mean", 0, 1.5), ("test_return_mean", 100, None), ("test_return_mean", 205, -2.25)]
    assert curves_of(tmp_path, lines)["test_return_mean"] == [(0, 1.5), (100, None), (205, -2.25)]


def test_a_step_logged_twice_counts_once_with_its_later_value(tmp_path):
    lines = [("test_x_mean", 0, 0.0), ("test_x_mean", 200, 9.0), ("test_x_mean", 100, 1.0), ("test_x_mean", 200, 2.0)]
    assert curves_of(tmp_path, lines)["test_x_mean"] == [(0, 0.0), (100, 1.0), (200, 2.0)]


def test_all_test_metrics_and_the_most_telling_training_metrics_are_kept(tmp_path):
    names = [f"aux_{index}" for index in range(20)] + ["success_mean", "critic_loss", "final_success_mean", "episode"]
    names += [f"test_metric_{index}_mean" for index in range(20)] + ["test_success_mean", "cpu_seconds"]
    kept = set(curves_of(tmp_path, [(name, 0, 1.0) for name in names]))
    assert {name for name in names if name.startswith("test_")} | {"success_mean", "critic_loss", "cpu_seconds"} <= kept
    assert not kept & {"final_success_mean", "episode"}
    assert sum(not name.startswith("test_") for name in kept) == TRAINING_CURVES + 1


def test_metrics_of_equal_steps_share_them(tmp_path):
    write_run(tmp_path, final={"success": 0.5, "return": 2.0})
    run = only_run(tmp_path)
    assert len(run["steps"]) == 1


def test_many_long_curves_stay_within_the_points_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("reports.runs_page.TOTAL_POINTS", 400)
    curve = [(step, float(step)) for step in range(500)]
    for _ in range(4):
        write_run(tmp_path, curves={"a": curve, "b": curve})
    data = data_of(tmp_path)
    points = sum(len(values) for run in data["runs"] for _, values in run["curves"].values())
    assert data["points"] == 50
    assert 300 < points <= 400


def test_a_short_curve_is_not_thinned():
    curve = [(step, float(step)) for step in range(150)]
    assert thin(curve, 150) == curve


@pytest.mark.parametrize("limit", [8, 30, 150])
def test_thinning_keeps_ends_peaks_drops_and_order(limit):
    curve = [(step, math.sin(step / 700)) for step in range(5000)]
    curve[1234] = (1234, 40.0)
    curve[4321] = (4321, -40.0)
    kept = thin(curve, limit)
    assert limit // 2 < len(kept) <= limit
    assert {curve[0], curve[1234], curve[4321], curve[-1]} <= set(kept)
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("gap", [(1, 2), (700, 701), (2000, 2900), (4998, 4999)])
def test_thinning_does_not_hide_a_gap(gap):
    curve = [(step, math.nan if gap[0] <= step < gap[1] else 1.0) for step in range(5000)]
    kept = thin(curve, 60)
    assert len(kept) <= 60
    assert any(gap[0] <= step < gap[1] and math.isnan(value) for step, value in kept)
    bridged = [
        (first, second)
        for (first, a), (second, b) in pairwise(kept)
        if not math.isnan(a) and not math.isnan(b) and first < gap[0] and second >= gap[1]
    ]
    assert bridged == [], "no line is drawn across the gap"


def test_thinning_to_almost_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        thin([(0, 1.0)], 3)


# ---- the page


HOSTILE = "</script><script>alert(1)</script><!--\u2028&amp;"


def test_whatever_a_label_or_setting_holds_stays_data(tmp_path):
    folder = write_run(tmp_path, label="", env_args={"map": HOSTILE, "ratio": math.inf})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"label": HOSTILE}))
    html = runs_page(find_runs(tmp_path), tmp_path)
    assert html.count("</script>") == html.count("<script") == 2
    assert "<!--" not in html
    assert "\u2028" not in html
    [run] = embedded(html)["runs"]
    assert (run["label"], run["config"]["env_args.map"]) == (HOSTILE, HOSTILE)
    assert run["config"]["env_args.ratio"] == "Infinity"


def test_embedded_json_is_what_was_given():
    value = {"a": [1, 2.5, None, True, "<b>é\u2029</b>"], "b": {}}
    assert json.loads(script_json(value)) == value


def test_the_page_loads_nothing(tmp_path):
    write_run(tmp_path)
    html = runs_page(find_runs(tmp_path), tmp_path)
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:,)[^\"']*", html) == []
    assert set(re.findall(r"https?://[^\"']+", html)) == {"http://www.w3.org/2000/svg"}


def test_an_empty_page_can_be_made(tmp_path):
    assert embedded(runs_page([], tmp_path))["runs"] == []


def test_links_are_relative_to_where_the_page_lies(tmp_path):
    write_run(tmp_path / "results")
    (tmp_path / "pages").mkdir()
    records = find_runs(tmp_path / "results")
    assert embedded(runs_page(records, tmp_path / "results"))["base"] == "."
    assert embedded(runs_page(records, tmp_path / "results", tmp_path / "pages"))["base"] == "../results"


# ---- the command


def test_the_command_prints_the_page_and_the_counts(tmp_path, capsys):
    write_run(tmp_path)
    write_run(tmp_path, "iql")
    (write_run(tmp_path, "vdn") / "run.json").write_text("")
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "runs.html"), "3 runs: 2 COMPLETED, 1 BROKEN"]
    assert len(embedded((tmp_path / "runs.html").read_text())["runs"]) == 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_page_is_written_anew_over_itself(tmp_path):
    write_run(tmp_path)
    write_runs_page(tmp_path)
    write_run(tmp_path)
    assert len(embedded(write_runs_page(tmp_path).read_text())["runs"]) == 2


def test_another_file_is_not_overwritten(tmp_path):
    write_run(tmp_path)
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match=r"notes\.html exists"):
        main([str(tmp_path), "--output", str(tmp_path / "notes.html")])
    assert (tmp_path / "notes.html").read_text() == "<p>mine</p>"


def test_a_folder_without_runs_is_refused_and_told_what_it_holds(tmp_path):
    (tmp_path / "published").mkdir()
    with pytest.raises(UserError, match=r"no run in .* there is: published"):
        main([str(tmp_path)])
    assert not (tmp_path / "runs.html").exists()
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "absent")])
    write_run(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        main([str(tmp_path), "--output", str(tmp_path / "absent" / "runs.html")])
