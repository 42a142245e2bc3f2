"""The runs page in a browser: what a user sees and does."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from support.browser import OpenPage, console_errors, load_milliseconds, overflowing, requested
from support.result_folders import write_run

from reports.runs_page import runs_page, write_runs_page

HOSTILE = "</script><img src=x onerror=document.title='hacked'>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms with three seeds each, a learning-rate pair, one dead, one failed and one broken run."""
    folder = tmp_path_factory.mktemp("results")
    for name, best in (("iql", 0.3), ("lpmarl", 0.9)):
        for seed in (1, 2, 3):
            value = best + 0.02 * seed
            curve = [(0, 0.0), (10_000, value / 2), (20_000, value)]
            write_run(
                folder,
                name,
                seed=seed,
                final={"success": value},
                curves={"success": curve, "return": [(t, 10 * y) for t, y in curve]},
                summary={"test": {"success": value, "return": 10 * value}},
            )
    for lr in (0.001, 0.01):
        write_run(folder, "qmix", lr=lr, label="lr", summary={"test": {"success": lr}}, commit={"commit": f"{lr}" * 9})
    dead = write_run(folder, "vdn", status="RUNNING", env_args={"map": HOSTILE}, curves={"success": [(0, 0.1)]})
    (dead / "run.lock").write_text(json.dumps({"pid": 77, "host": socket.gethostname()}))
    (dead / "resume" / "12000").mkdir(parents=True)
    failed = write_run(folder, "vdn", status="FAILED", final={})
    record = json.loads((failed / "run.json").read_text())
    (failed / "run.json").write_text(json.dumps(record | {"fail_trace": ["Traceback\n", "ValueError: too big\n"]}))
    (write_run(folder, "vdn") / "run.json").write_text("")
    (folder / "sacred/navigation/lpmarl/1/replay.html").write_text("<title>the replay</title>")
    write_runs_page(folder)
    return folder


@pytest.fixture
def page(browser: OpenPage, results: Path) -> Any:
    driver = browser(results / "runs.html")
    yield driver
    assert console_errors(driver) == []


def names(driver: Any) -> list[str]:
    # In one call: the rows are made anew with every change.
    script = "return [...document.querySelectorAll('#runs tbody .name')].map(found => found.textContent)"
    return list(driver.execute_script(script))


def columns(driver: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#runs thead th')].map(head => head.dataset.column || '')"
    return list(driver.execute_script(script))


def cells(driver: Any, column: str) -> list[str]:
    place = columns(driver).index(column) + 1
    script = "return [...document.querySelectorAll(arguments[0])].map(cell => cell.textContent)"
    return list(driver.execute_script(script, f"#runs tbody td:nth-child({place})"))


def click_head(driver: Any, column: str) -> str | None:
    driver.find_element(By.CSS_SELECTOR, f'#runs th[data-column="{column}"] button').click()
    return driver.find_element(By.CSS_SELECTOR, f'#runs th[data-column="{column}"]').get_attribute("aria-sort")


def type_filter(driver: Any, text: str, left: int) -> None:
    box = driver.find_element(By.ID, "query")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(text)
    await_filter(driver, text)
    assert len(names(driver)) == left


def await_filter(driver: Any, text: str) -> None:
    applied = "return new URLSearchParams(location.hash.slice(1)).get('q')"
    WebDriverWait(driver, 5, 0.02).until(lambda _: driver.execute_script(applied) == text)


def tick(driver: Any, *titles: str) -> None:
    for title in titles:
        driver.find_element(By.CSS_SELECTOR, f'input[aria-label="Select {title}"]').click()


def press(driver: Any, selector: str) -> None:
    """A click in one call, for what may be made anew between finding and clicking it."""
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def readout(driver: Any) -> list[str]:
    return driver.find_element(By.CSS_SELECTOR, ".readout").text.splitlines()


def size_of(driver: Any, selector: str) -> list[float]:
    script = "const box = document.querySelector(arguments[0]).getBBox(); return [box.width, box.height]"
    return list(driver.execute_script(script, selector))


def chip(driver: Any, facet: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, f'[data-facet="{facet}"]')


def panel(driver: Any, name: str) -> str:
    return driver.find_element(By.ID, name).text


def test_it_fits_the_window_and_loads_nothing(page):
    assert overflowing(page) == [0, 0]
    assert requested(page) == []
    assert len(names(page)) == 11
    assert "hacked" not in page.title


def test_a_header_sorts_and_sorts_back(page):
    assert click_head(page, "final.success") == "descending"
    assert names(page)[:3] == ["lpmarl #3", "lpmarl #2", "lpmarl #1"]
    assert click_head(page, "final.success") == "ascending"
    assert cells(page, "final.success")[:2] == ["0.001", "0.010"]
    assert cells(page, "final.success")[-1] == "–", "absent values come last in both directions"
    assert click_head(page, "final.success") is None
    assert click_head(page, "seed") == "ascending"


@pytest.mark.parametrize(
    ("text", "left", "shown"),
    [
        ("success>0.9", 3, {"lpmarl"}),
        ("success>=0.94 seed<3", 1, {"lpmarl"}),
        ("lr!=0.0005 -vdn", 2, {"qmix_lr"}),
        ("lr=1e-3", 1, {"qmix_lr"}),
        ("test_return_mean<4 test_return_mean>0", 3, {"iql"}),
        ("-lpmarl -IQL status=completed", 2, {"qmix_lr"}),
        ("DEAD", 1, {"vdn"}),
        ('label="lr"', 2, {"qmix_lr"}),
        ("too -broken big", 1, {"vdn"}),
        ('"too big"', 1, {"vdn"}),
        ("seed=", 11, {"iql", "lpmarl", "qmix_lr", "vdn"}),
    ],
)
def test_the_filter_knows_words_settings_and_metrics(page, text, left, shown):
    type_filter(page, text, left)
    assert {name.split(" #")[0] for name in names(page)} == shown


def test_what_is_being_typed_survives_a_redraw(page):
    page.find_element(By.ID, "query").send_keys("lpm")
    script = """
        const box = document.getElementById("query")
        box.value = "lpmarl seed=2"
        box.dispatchEvent(new Event("input"))
        document.getElementById("tab-details").click()
        return box.value"""
    assert page.execute_script(script) == "lpmarl seed=2"
    await_filter(page, "lpmarl seed=2")
    assert names(page) == ["lpmarl #2"]


def test_an_unknown_key_is_told_with_what_there_is(page):
    type_filter(page, "seeed>0.5", 0)
    assert "No run has the key seeed; there is seed" in panel(page, "nothing")
    page.find_element(By.CSS_SELECTOR, "#nothing button").click()
    assert len(names(page)) == 11


def test_chips_choose_and_count(page):
    chip(page, "algorithm=vdn").click()
    assert len(names(page)) == 3
    assert chip(page, "status=DEAD").text.split()[-1] == "1"
    assert chip(page, "status=COMPLETED").text.split()[-1] == "0"
    chip(page, "status=DEAD").click()
    assert names(page) == ["vdn #1"]
    assert chip(page, "status=DEAD").get_attribute("aria-pressed") == "true"
    chip(page, "algorithm=vdn").click()
    assert names(page) == ["vdn #1"]


def test_bad_ends_are_seen_at_a_glance(page):
    badges = {found.text.split()[-1]: found for found in page.find_elements(By.CSS_SELECTOR, "#runs .badge")}
    assert "77" in badges["dead"].get_attribute("title")
    assert badges["failed"].get_attribute("title") == "ValueError: too big"
    assert "run.json" in badges["broken"].get_attribute("title")
    assert badges["completed"].get_attribute("title") == ""


def test_the_settings_that_differ_are_columns_by_themselves(page):
    assert {"0.0005", "0.001", "0.01"} <= set(cells(page, "lr"))
    type_filter(page, "lpmarl", 3)
    assert "lr" not in columns(page)


def test_columns_are_chosen_from_a_menu(page):
    page.find_element(By.CSS_SELECTOR, "#columns summary").click()
    titles = "return [...document.querySelectorAll('#columns h3')].map(title => title.textContent)"
    WebDriverWait(page, 5, 0.02).until(lambda driver: driver.execute_script(titles))
    assert page.execute_script(titles)[0].startswith("Settings that differ")
    press(page, '#columns input[data-column="test_interval"]')
    assert set(cells(page, "test_interval")) == {"10000", "–"}
    press(page, '#columns input[data-column="seed"]')
    assert "seed" not in columns(page)


def test_curves_show_the_mean_and_the_range_of_the_seeds(page):
    type_filter(page, "iql", 3)
    chart = page.find_element(By.CSS_SELECTOR, "#chart svg")
    chart.send_keys(Keys.END)
    assert readout(page) == ["20,000 steps", "iql 0.34 0.32 to 0.36 n = 3"]
    chart.send_keys(Keys.ARROW_LEFT)
    assert readout(page) == ["10,000 steps", "iql 0.17 0.16 to 0.18 n = 3"]
    width, height = size_of(page, '[data-line="iql"]')
    frame_width, frame_height = size_of(page, "#frame rect")
    # The plot goes from 0 to 1 for a share; 4 pixels of the frame lie beyond either end.
    assert height / (frame_height - 8) == pytest.approx(0.34, abs=0.01)
    assert width / (frame_width - 5) == pytest.approx(1.0, abs=0.01)


def test_curves_follow_the_chosen_metric_lines_and_selection(page):
    Select(page.find_element(By.ID, "metric")).select_by_value("test_return_mean")
    Select(page.find_element(By.ID, "group")).select_by_value("run")
    tick(page, "lpmarl #2", "iql #1")
    lines = page.find_elements(By.CSS_SELECTOR, "#chart [data-line]")
    assert [line.get_attribute("data-line") for line in lines] == ["iql #1", "lpmarl #2"]
    page.find_element(By.CSS_SELECTOR, "#chart svg").send_keys(Keys.END)
    assert readout(page)[1:] == ["lpmarl #2 9.4 navigation seed 2", "iql #1 3.2 navigation seed 1"]


def test_the_pointer_reads_the_nearest_point(page):
    type_filter(page, "iql", 3)
    chart = page.find_element(By.CSS_SELECTOR, "#chart svg")
    ActionChains(page).move_to_element(chart).perform()
    assert readout(page)[0] == "10,000 steps"


def test_the_legend_hides_a_line_and_tells_mixed_settings(page):
    entries = {found.text.split("\n")[0]: found for found in page.find_elements(By.CSS_SELECTOR, "#legend button")}
    assert "mixes lr" in entries["qmix_lr"].text
    assert "mixes" not in entries["lpmarl"].text
    entries["lpmarl"].click()
    drawn = [line.get_attribute("data-line") for line in page.find_elements(By.CSS_SELECTOR, "#chart [data-line]")]
    assert "lpmarl" not in drawn
    assert "iql" in drawn


def test_runs_that_end_early_do_not_pretend_to_reach_the_end(browser, tmp_path):
    write_run(tmp_path, seed=1, curves={"success": [(0, 0.0), (10_000, 0.2), (20_000, 0.4)]})
    write_run(tmp_path, seed=2, curves={"success": [(0, 0.2), (2_000, None), (4_000, 0.2)]})
    driver = browser(write_runs_page(tmp_path))
    chart = driver.find_element(By.CSS_SELECTOR, "#chart svg")
    chart.send_keys(Keys.HOME)
    assert readout(driver)[1].split()[1:] == ["0.1", "0", "to", "0.2", "n", "=", "2"]
    chart.send_keys(Keys.ARROW_RIGHT)
    assert readout(driver) == ["2,000 steps", "qmix 0.04 n = 1"], "the other run has a gap there"
    chart.send_keys(Keys.END)
    assert readout(driver) == ["20,000 steps", "qmix 0.4 n = 1"]
    Select(driver.find_element(By.ID, "group")).select_by_value("run")
    gap = driver.find_element(By.CSS_SELECTOR, '[data-line="qmix #2"]').get_attribute("d")
    assert "L" not in gap, "two points apart, no line between them"
    assert gap.count("M") == 2
    assert console_errors(driver) == []


def test_two_selected_runs_are_diffed(page):
    tick(page, "qmix_lr #1", "qmix_lr #2")
    page.find_element(By.ID, "compare").click()
    rows = page.find_elements(By.CSS_SELECTOR, "#diff tr.differs")
    assert [row.text for row in rows][:1] == ["lr 0.001 0.01"]
    assert [row.text.split()[0] for row in rows[1:]] == ["commit"]
    assert "equal settings" in panel(page, "diff")
    assert not page.find_element(By.CSS_SELECTOR, "#diff details table").is_displayed()
    assert "test_interval" not in panel(page, "diff")


def test_details_of_a_dead_run_say_why_and_how_to_go_on(page, results):
    page.find_element(By.CSS_SELECTOR, '[data-path="sacred/navigation/vdn/1"] .name').click()
    text = panel(page, "details")
    assert "process 77" in text
    assert "from its full state at 12,000 steps" in text
    assert f"python src/main.py resume {results}/sacred/navigation/vdn/1" in text
    assert HOSTILE in text
    links = {a.text: a.get_attribute("href") for a in page.find_elements(By.CSS_SELECTOR, "#details .links a")}
    run = (results / "sacred/navigation/vdn/1").as_uri()
    assert links["folder"] == f"{run}/"
    assert links["config.json"] == f"{run}/config.json"


def test_a_replay_is_one_click_away(page):
    page.find_element(By.CSS_SELECTOR, '[data-path="sacred/navigation/lpmarl/1"] .play').click()
    WebDriverWait(page, 5).until(lambda driver: driver.title == "the replay")


def test_the_address_holds_the_view(page, browser):
    type_filter(page, "success>0.2", 6)
    click_head(page, "final.success")
    Select(page.find_element(By.ID, "metric")).select_by_value("test_return_mean")
    tick(page, "lpmarl #1", "iql #2")
    page.find_element(By.ID, "tab-diff").click()
    address, shown = page.current_url, names(page)
    page.get("about:blank")
    page.get(address)
    assert names(page) == shown
    assert page.find_element(By.ID, "query").get_attribute("value") == "success>0.2"
    assert "lpmarl #1" in panel(page, "diff")
    page.find_element(By.ID, "tab-curves").click()
    assert page.find_element(By.ID, "metric").get_attribute("value") == "test_return_mean"


def test_everything_is_reached_with_the_keyboard(page):
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    box = page.switch_to.active_element
    assert box.get_attribute("id") == "query"
    box.send_keys("lpmarl")
    await_filter(page, "lpmarl")
    box.send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element.text == "lpmarl #2"
    page.switch_to.active_element.send_keys(" ")
    assert page.find_element(By.CSS_SELECTOR, 'input[aria-label="Select lpmarl #2"]').is_selected()
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.find_element(By.ID, "tab-details").get_attribute("aria-selected") == "true"
    assert "lpmarl #2" in panel(page, "details")


def test_all_filtered_runs_are_selected_at_once(page):
    type_filter(page, "lpmarl", 3)
    page.find_element(By.CSS_SELECTOR, "#runs thead input").click()
    assert panel(page, "picked") == "3 selected"
    type_filter(page, "lpmarl seed<3", 2)
    assert panel(page, "picked") == "3 selected, 1 of them not in the filter"
    page.find_element(By.ID, "unpick").click()
    assert "selected" not in panel(page, "picked")


def test_an_empty_folder_says_what_to_do(browser, tmp_path):
    (tmp_path / "runs.html").write_text(runs_page([], tmp_path))
    driver = browser(tmp_path / "runs.html")
    assert "No runs yet" in panel(driver, "nothing")
    assert "python src/main.py" in panel(driver, "nothing")
    assert overflowing(driver) == [0, 0]
    assert console_errors(driver) == []


def test_two_hundred_runs_are_small_and_quick(browser, tmp_path):
    curve = [(step * 10_000, (step * 37) % 101 / 100.7) for step in range(150)]
    curves = {f"metric_{index}": curve for index in range(9)} | {"success": curve}
    first = write_run(tmp_path, curves=curves)
    for seed in range(2, 201):
        folder = write_run(tmp_path, ("iql", "qmix", "vdn", "lpmarl")[seed % 4], seed=seed, curves={})
        shutil.copy(first / "metrics.jsonl", folder)
    path = write_runs_page(tmp_path)
    assert path.stat().st_size < 10e6
    driver = browser(path)
    # The browser may answer before the page's script has run.
    WebDriverWait(driver, 10).until(names)
    assert len(names(driver)) == 200
    # Under a second on an idle machine; the limit leaves room for a busy one.
    assert load_milliseconds(driver) < 3000
    assert overflowing(driver) == [0, 0]
    assert console_errors(driver) == []
