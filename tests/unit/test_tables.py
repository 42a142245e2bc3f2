"""Tables, CSV files and curves of results."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.result_folders import write_run, write_seeds

from components.errors import UserError
from reports.comparable import compare
from reports.csv_files import curves_csv, seeds_csv, table_csv
from reports.plots import draw_curves, save_figure
from reports.run_records import RunRecord, find_runs
from reports.scores import Results, choose_metric, evaluate
from reports.tables import escape, latex, markdown

GOOD = (0.7, 0.8, 0.9, 0.9, 1.0)


def results(folder, metric="success", **options) -> Results:
    return evaluate(compare(find_runs(folder)), metric, **options)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def row(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith((f"| {title} ", f"{title} &")))


@pytest.fixture
def two_algorithms(tmp_path):
    write_seeds(tmp_path, GOOD, name="qmix", label="a_b", env_args={"n_agents": 3})
    write_seeds(tmp_path, (0.1, 0.2, 0.3), name="vdn", env_args={"n_agents": 3})
    return tmp_path


def test_markdown_shows_statistic_interval_seeds_and_deviation(two_algorithms):
    text = markdown(results(two_algorithms))
    cell = re.search(r"\| qmix_a_b \| 0\.867 \[(\S+), (\S+)\] \(5\) \|", text)
    assert cell is not None
    assert 0.7 <= float(cell[1]) < 0.867 < float(cell[2]) <= 1.0
    assert "| qmix_a_b | 0.860 ± 0.114 |" in text
    assert "IQM [95 % interval] (seeds)" in text
    assert "mean [95 % interval] (seeds)" in markdown(results(two_algorithms, statistic="mean"))


def test_few_seeds_are_flagged_in_every_format(two_algorithms):
    found = results(two_algorithms)
    text, tex = markdown(found), latex(found)
    assert row(text, "vdn").endswith("(3)ᵃ |")
    assert "ᵃ fewer than 5 seeds" in text
    assert "ᵃ" not in row(text, "qmix_a_b")
    assert row(tex, "vdn").endswith(r"(3)\textsuperscript{a} \\")
    assert r"\textsuperscript{a} fewer than 5 seeds" in tex
    flags = {line["algorithm"]: line["flags"] for line in lines(table_csv(found))}
    assert "fewer than 5 seeds" in flags["vdn"]
    assert flags["qmix"] == ""
    labels = [text.get_text() for text in draw_curves(found).legends[0].get_texts()]
    assert labels == ["qmix_a_b (5 seeds)", "vdn (3 seeds)"]


def test_improvement_over_the_baseline(two_algorithms):
    found = results(two_algorithms, baseline="vdn")
    assert "| qmix_a_b | 1.00 [1.00, 1.00] |" in markdown(found)
    line = next(line for line in lines(table_csv(found)) if line["algorithm"] == "qmix")
    assert (line["baseline"], line["improvement"]) == ("vdn", "1.0")


def test_a_baseline_is_found_by_its_name_where_that_is_clear(two_algorithms):
    assert results(two_algorithms, baseline="qmix").baseline.title == "qmix_a_b"
    write_run(two_algorithms, "qmix", env_args={"n_agents": 3})
    assert results(two_algorithms, baseline="qmix").baseline.title == "qmix"
    write_run(two_algorithms, "vdn", label="c", env_args={"n_agents": 3})
    write_run(two_algorithms, "iql", label="c", env_args={"n_agents": 3})
    write_run(two_algorithms, "iql", label="d", env_args={"n_agents": 3})
    with pytest.raises(UserError, match=r"several rows.*iql_c, iql_d"):
        results(two_algorithms, baseline="iql")
    with pytest.raises(UserError, match="no such row; did you mean 'vdn'"):
        results(two_algorithms, baseline="vdm")


def test_what_was_not_run_is_a_dash(tmp_path):
    write_run(tmp_path, "qmix", env="navigation")
    write_run(tmp_path, "vdn", env="matrix_game")
    text = markdown(results(tmp_path))
    assert re.search(r"\| qmix \| – \| 0\.500.*\| – \|", text), "neither there nor over all environments"


def test_an_experiment_set_names_its_columns_where_the_name_is_one(tmp_path):
    for n_agents in (3, 5):
        for seed in (1, 2):
            write_run(tmp_path, env="navigation", seed=seed, env_args={"n_agents": n_agents})
    few, many = (
        [replace(run, setting=setting) for run in find_runs(tmp_path) if run.config["env_args"]["n_agents"] == n_agents]
        for setting, n_agents in (("few", 3), ("many", 5))
    )
    too = [replace(run, setting="many_too") for run in many]
    # An algorithm of a set may change its environment.
    changed = [replace(run, setting="few") for run in many]

    def titles(runs: list[RunRecord]) -> list[str]:
        return [column.title for column in evaluate(compare(runs), "success").columns][:2]

    assert titles(few + many) == ["few", "many"]
    assert titles(few + many[:1] + too[1:]) == ["few", "navigation"]
    assert titles(few + changed) == ["few n_agents=3", "few n_agents=5"]


def test_shares_are_aggregated_over_environments_and_returns_are_not(tmp_path):
    for env, values in (("navigation", GOOD), ("matrix_game", (0.0, 0.0, 0.0, 0.0, 0.0))):
        for seed, value in enumerate(values, start=1):
            write_run(tmp_path, env=env, seed=seed, final={"success": value, "return": 100 * value})
    shares, returns = results(tmp_path), results(tmp_path, "return")
    assert [column.title for column in shares.columns] == ["matrix_game", "navigation", "all environments"]
    assert [column.title for column in returns.columns] == ["matrix_game", "navigation"]
    total = next(line for line in lines(table_csv(shares)) if line["environment"] == "all environments")
    assert float(total["mean"]) == pytest.approx(0.43)
    assert total["std"] == ""
    # Resampled within each environment: the one that always gives 0 adds nothing to the interval.
    own = next(line for line in lines(table_csv(shares)) if line["environment"] == "navigation")
    width, own_width = (float(line["mean_high"]) - float(line["mean_low"]) for line in (total, own))
    assert width == pytest.approx(own_width / 2, rel=0.1)


def test_the_flags_of_a_cell_hold_for_the_aggregate(tmp_path):
    write_seeds(tmp_path, GOOD, env="navigation")
    write_seeds(tmp_path, GOOD[:3], env="matrix_game")
    total = lines(table_csv(results(tmp_path)))[-1]
    assert total["environment"] == "all environments"
    assert "fewer than 5 seeds" in total["flags"]
    assert "environments with more seeds weigh more" in total["flags"]


def test_seeds_without_a_value_are_left_out_and_told(tmp_path):
    write_seeds(tmp_path, (*GOOD, None), metric="steps_to_success")
    found = results(tmp_path, "steps_to_success")
    assert lines(table_csv(found))[0]["runs"] == "5"
    assert "1 of 6 seeds have no steps_to_success" in markdown(found)


def test_a_metric_that_no_run_has_a_value_of_is_an_error(tmp_path):
    write_seeds(tmp_path, (None,))
    with pytest.raises(UserError, match="applied to no episode"):
        results(tmp_path)


def test_metric_is_success_else_return_else_any_and_a_wrong_one_lists_them(tmp_path):
    write_run(tmp_path / "a", final={"success": 1.0, "return": 1.0, "agreement": 1.0})
    write_run(tmp_path / "b", final={"return": 1.0, "agreement": 1.0})
    write_run(tmp_path / "c", final={"agreement": 1.0})
    write_run(tmp_path / "d", final={})
    found = {name: find_runs(tmp_path / name) for name in "abcd"}
    assert [choose_metric(found[name]) for name in "abc"] == ["success", "return", "agreement"]
    with pytest.raises(UserError, match=r"'return_'; did you mean 'return'\? Known: agreement, return, success"):
        choose_metric(found["a"], "return_")
    with pytest.raises(UserError, match="final_nepisode"):
        choose_metric(found["d"])


def test_seeds_csv_has_every_seed_with_all_its_final_metrics(tmp_path):
    played = {"env_version": 2}
    write_run(tmp_path, seed=1, final={"success": 0.5, "return": 3.0}, summary=played)
    write_run(tmp_path, "vdn", seed=2, final={"success": 0.25, "agreement": 1.0}, summary=played)
    found = lines(seeds_csv(results(tmp_path)))
    assert [(line["algorithm"], line["seed"], line["final_success_mean"]) for line in found] == [
        ("qmix", "1", "0.5"),
        ("vdn", "2", "0.25"),
    ]
    assert [line["final_return_mean"] for line in found] == ["3.0", ""]
    assert found[0]["env_commit"] == "e" * 40
    assert [line["env_version"] for line in found] == ["2", "2"]


def test_curves_csv_has_the_statistic_of_each_point(tmp_path):
    for seed, end in ((1, 0.0), (2, 1.0)):
        write_run(tmp_path, seed=seed, curves={"success": [(0, 0.0), (10_100, end), (20_200, end)]})
    found = lines(curves_csv(results(tmp_path)))
    assert [line["env_steps"] for line in found] == ["0", "10000", "20000"]
    np.testing.assert_allclose([float(line["value"]) for line in found], [0, 0.495, 0.5], atol=1e-3)
    assert [(line["low"], line["high"]) for line in found[2:]] == [("0.0", "1.0")]


def test_a_test_that_was_repeated_after_a_resume_counts_once(tmp_path):
    write_run(tmp_path, curves={"success": [(0, 0.0), (10_000, 0.1), (10_000, 0.3), (20_000, 0.5)]})
    assert [float(line["value"]) for line in lines(curves_csv(results(tmp_path)))] == [0.0, 0.3, 0.5]


def test_runs_without_tests_while_training_have_a_table_and_no_curve(tmp_path):
    write_seeds(tmp_path, GOOD, curves={})
    found = results(tmp_path)
    assert found.curves == {}
    assert "0.867" in markdown(found)
    save_figure(draw_curves(found), tmp_path / "curves.png")


def test_the_same_results_give_the_same_svg_without_a_date(two_algorithms):
    found = results(two_algorithms)
    for name in ("one.svg", "two.svg"):
        save_figure(draw_curves(found), two_algorithms / name)
    one, two = ((two_algorithms / name).read_text() for name in ("one.svg", "two.svg"))
    assert one == two
    assert "<dc:date>" not in one


@pytest.mark.parametrize("count", [1, 4, 7])
def test_there_is_a_panel_for_each_environment_and_nothing_is_cut_off(tmp_path, count):
    for size in range(1, count + 1):
        write_run(
            tmp_path, "an_algorithm", label="with_a_long_label", env_args={"n_agents": size, "radius": 0.1 * size}
        )
    figure = draw_curves(results(tmp_path), show_seeds=True)
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == count
    page = figure.bbox
    shown = [*(axes.title for axes in panels), *figure.legends]
    boxes = [item.get_window_extent() for item in shown]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)


def test_of_a_search_the_highest_are_drawn_and_nothing_is_cut_off(tmp_path):
    for index in range(20):
        label = f"setting_{index:02d}-of_a_search-with_hyper_parameters-and_long_names"
        write_run(tmp_path, "qmix", label=label, final={"success": index / 20})
    figure = draw_curves(results(tmp_path))
    figure.canvas.draw()
    [legend], page = figure.legends, figure.bbox
    names = [text.get_text() for text in legend.get_texts()]
    assert [name[13:15] for name in names] == [f"{index:02d}" for index in range(6, 20)]
    assert legend.get_title().get_text() == "the 14 highest of 20"
    box = legend.get_window_extent()
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1
    assert page.y0 <= box.y0


def test_single_seeds_are_drawn_on_demand(two_algorithms):
    found = results(two_algorithms)
    assert len(draw_curves(found).axes[0].lines) == 2
    assert len(draw_curves(found, show_seeds=True).axes[0].lines) == 2 + 8


def is_balanced(tex: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", tex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_latex_is_balanced_and_every_line_has_all_columns(two_algorithms):
    write_run(two_algorithms, "100%_&#$~^\\{odd}", env_args={"n_agents": 10, "payoff": [[1, 2]]})
    tex = latex(results(two_algorithms, baseline="vdn"))
    assert is_balanced(tex)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", tex) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert begun.count("table") == 3
    tables = re.findall(r"\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL)
    for table in tables:
        body = [line for line in table.splitlines() if line != r"\midrule"]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {3}, "two environments and all of them"
        assert all(line.endswith(r" \\") for line in body)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_escaped_text_has_no_live_special_character(text):
    shown = escape(text)
    for command in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textless{}",
        r"\textgreater{}",
    ):
        shown = shown.replace(command, "")
    assert not set(re.sub(r"\\[&%$#_{}]", "", shown)) & set(r"\{}&%$#_~^<>")
    assert is_balanced(escape(text))


def test_a_pipe_in_a_name_does_not_break_the_markdown_table(tmp_path):
    write_run(tmp_path, "a", env_args={"mode": "x|y"})
    write_run(tmp_path, "a", env_args={"mode": "z"})
    header, rule = markdown(results(tmp_path)).splitlines()[4:6]
    assert len(re.findall(r"(?<!\\)\|", header)) == len(re.findall(r"\|", rule))


@pytest.mark.parametrize(("scale", "shown"), [(1, "0.500 "), (100, "50.00 "), (1e4, "5000 "), (0.01, "0.00500 ")])
def test_numbers_have_the_decimals_of_their_size(tmp_path, scale, shown):
    write_run(tmp_path, final={"return": 0.5 * scale})
    assert f"| qmix | {shown}[" in markdown(results(tmp_path, "return"))


def test_an_unknown_statistic_is_refused(two_algorithms):
    with pytest.raises(UserError, match="'median'"):
        results(two_algorithms, statistic="median")
