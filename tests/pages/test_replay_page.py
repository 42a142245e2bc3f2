"""The replay page in a browser: what it shows, and how it is played with pointer and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import OpenPage, console_errors, load_milliseconds, overflowing, requested
from support.replays import played, small_config, two_policies

from reports.replay_page import write_replay_page

Panels = list[dict[str, Any]]
# A page of 20 episodes of 50 steps, 10 agents, 10 tasks and two policies.
MEGABYTES, SECONDS = 5, 1.0


@pytest.fixture(scope="module")
def panels() -> Panels:
    return two_policies(4)


@pytest.fixture(scope="module")
def page(panels: Panels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_replay_page(tmp_path_factory.mktemp("page") / "replay.html", panels)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    many = two_policies(20, "env_args.n_agents=10", "env_args.n_landmarks=10")
    return write_replay_page(tmp_path_factory.mktemp("large") / "replay.html", many)


@pytest.fixture
def driver(browser: OpenPage, page: Path) -> Any:
    return browser(page)


def one(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def texts(driver: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)"
    return list(driver.execute_script(script, selector))


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def step(driver: Any) -> int:
    return int(one(driver, "#step").get_attribute("value"))


def episode(driver: Any) -> int:
    return int(one(driver, "#episodes [aria-pressed=true]").text.splitlines()[0])


def wait(driver: Any, condition: Callable[[Any], Any]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10, poll_frequency=0.05).until(condition)


def length(panels: Panels, number: int) -> int:
    return max(int(panel["episodes"][number]["length"]) for panel in panels)


def assigned(panel: dict[str, Any], number: int, t: int) -> list[int]:
    found: list[int] = [row for start, row in panel["episodes"][number]["assign"] if start <= t][-1]
    return found


def test_nothing_is_loaded_nothing_fails_and_everything_fits(driver: Any) -> None:
    assert console_errors(driver) == []
    assert requested(driver) == []
    assert overflowing(driver) == [0, 0]


def test_a_large_page_is_small_fast_and_fits(browser: OpenPage, large: Path) -> None:
    assert large.stat().st_size < MEGABYTES * 1e6
    driver = browser(large)
    assert load_milliseconds(driver) < 1000 * SECONDS
    press(driver, *["\ue015", "\ue014"] * 3)  # down, right
    assert overflowing(driver) == [0, 0]
    assert console_errors(driver) == []
    # No cell's number is wider than the cell, and nothing of the main view is cut off.
    script = """
        const wide = [...document.querySelectorAll("tbody td")].filter(node => {
          const text = document.createRange()
          text.selectNodeContents(node)
          return text.getBoundingClientRect().width > node.clientWidth
        })
        const view = document.querySelector("footer").getBoundingClientRect().top
        const shown = [...document.querySelectorAll("main table, main dl")]
        const low = shown.filter(node => node.getBoundingClientRect().bottom > view)
        return [wide.length, low.length]"""
    assert driver.execute_script(script) == [0, 0]


def test_the_matrices_show_the_numbers_of_the_data(driver: Any, panels: Panels) -> None:
    for side, panel in enumerate(panels, start=1):
        base = f".panel:nth-child({side}) table[data-kind=Scores]"
        decision = panel["episodes"][0]["decisions"][0]
        shown = [float(text.replace("\u2212", "-")) for text in texts(driver, f"{base} tbody td")]
        assert shown == pytest.approx([score for row in decision["scores"] for score in row], abs=0.0051)
        prices = [float(text.replace("\u2212", "-")) for text in texts(driver, f"{base} tfoot tr:last-child td")]
        assert prices == pytest.approx(decision["prices"], abs=0.0051)
        script = "return [...document.querySelectorAll(arguments[0])].map(node => node.dataset.pair)"
        chosen = driver.execute_script(script, f"{base} td.chosen")
        assert chosen == [f"{i},{j}" for i, j in enumerate(assigned(panel, 0, 0))]
        least = driver.execute_script(script, f"{base} td.least")
        assert least == [f"{i},{j}" for i, j in enumerate(decision["least_distance"])]


def test_the_price_is_taken_off_the_scores_so_that_chosen_cells_are_the_best_of_their_rows(driver: Any) -> None:
    press(driver, "p")
    script = """
        return [...document.querySelectorAll("table[data-kind=Scores] tbody tr")].map(row => {
          const values = [...row.querySelectorAll("td")].map(cell => Number(cell.textContent.replace("\u2212", "-")))
          const chosen = [...row.querySelectorAll("td")].findIndex(cell => cell.classList.contains("chosen"))
          return Math.max(...values) - values[chosen]
        })"""
    gaps = driver.execute_script(script)
    assert len(gaps) == 10
    assert max(gaps) <= 0.0101


def test_the_regret_of_each_pair_is_shown_on_both_sides_and_what_was_chosen_is_darkest(
    driver: Any, panels: Panels
) -> None:
    one(driver, ".panel:last-child [data-matrix=regret]").click()
    assert driver.execute_script("return state.matrix") == "regret"
    darkness = """
        return [...document.querySelectorAll(arguments[0])]
          .map(cell => [cell.classList.contains("chosen"), getComputedStyle(cell).backgroundColor])"""
    for side, panel in enumerate(panels, start=1):
        cells = f".panel:nth-child({side}) table[data-kind=Scores] tbody td"
        decision = panel["episodes"][0]["decisions"][0]
        shown = [float(text) for text in texts(driver, cells)]
        assert shown == pytest.approx([loss for row in decision["regrets"] for loss in row], abs=0.0051)
        colors = [color for chosen, color in driver.execute_script(darkness, cells) if chosen]
        assert colors == ["rgb(44, 82, 120)"] * 5
        pressed = f".panel:nth-child({side}) .switch [aria-pressed=true]"
        assert texts(driver, pressed) == ["regret"]
    press(driver, "r")
    assert texts(driver, ".switch [aria-pressed=true]") == ["C", "C"]
    press(driver, "r", "p")
    assert texts(driver, ".switch [aria-pressed=true]") == ["C \u2212 price"] * 2


def test_the_margin_stands_in_the_line_of_the_decision(driver: Any, panels: Panels) -> None:
    shown = [float(text.rpartition("margin ")[2]) for text in texts(driver, ".when")]
    assert shown == pytest.approx([panel["episodes"][0]["decisions"][0]["margin"] for panel in panels], rel=0.05)
    press(driver, "]")
    later = [float(text.rpartition("margin ")[2]) for text in texts(driver, ".when")]
    assert later == pytest.approx([panel["episodes"][0]["decisions"][1]["margin"] for panel in panels], rel=0.05)


def test_the_titles_of_the_matrices_do_not_run_into_each_other(browser: OpenPage, page: Path, large: Path) -> None:
    script = """
        return [...document.querySelectorAll(".tables h3")].map(title => {
          const end = Math.max(...[...title.children].map(part => part.getBoundingClientRect().right))
          const cut = [...title.children].filter(part => part.scrollWidth > part.clientWidth + 1 && part.clientWidth)
          return [end > title.getBoundingClientRect().right + 1, cut.length]
        })"""
    for path in (page, large):
        assert browser(path).execute_script(script) == [[False, 0]] * 4


def test_distances_and_positions_move_with_the_step(driver: Any, panels: Panels) -> None:
    cells = ".panel:first-child table[data-kind=Distances] tbody td"
    first = texts(driver, cells)
    press(driver, *["\ue014"] * 8)
    assert texts(driver, cells) != first
    row = panels[0]["episodes"][0]["agents"][8]
    tasks = panels[0]["episodes"][0]["tasks"][0][1]
    distance = ((row[0] - tasks[0]) ** 2 + (row[1] - tasks[1]) ** 2) ** 0.5
    assert float(texts(driver, cells)[0]) == pytest.approx(distance, abs=0.0051)


def test_both_sides_start_alike_and_their_agreement_is_told(driver: Any, panels: Panels) -> None:
    script = """
        return [1, 2].map(side => [...document.querySelectorAll(`.panel:nth-child(${side}) .agent circle`)]
          .map(node => [node.getAttribute("cx"), node.getAttribute("cy")]))"""
    left, right = driver.execute_script(script)
    assert len(left) == 5
    assert left == right
    same = sum(a == b for a, b in zip(*(assigned(panel, 0, 0) for panel in panels), strict=True))
    assert f"both assign {same} of 5 agents" in one(driver, "#agreement").text
    assert len(driver.find_elements("css selector", ".half.differs")) == 5 - same
    press(driver, "\ue014", "\ue014", "\ue014")
    assert texts(driver, ".when")[0].startswith("decision 1 of")


def test_play_advances_to_the_end_and_pause_stops(driver: Any, panels: Panels) -> None:
    play = one(driver, "#play")
    play.click()
    assert play.get_attribute("aria-label") == "Pause"
    wait(driver, lambda driver: step(driver) >= 2)
    play.click()
    stopped = step(driver)
    driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert step(driver) == stopped
    press(driver, "+", "+", "\ue010", *["\ue012"] * 3, " ")  # end, three steps back, play
    wait(driver, lambda driver: step(driver) == length(panels, 0))
    assert play.get_attribute("aria-label") == "Play"
    assert all("step" in text for text in texts(driver, ".outcome"))


def test_the_slider_moves_the_replay(driver: Any) -> None:
    script = """
        const slider = document.getElementById("step")
        slider.value = 11
        slider.dispatchEvent(new Event("input", { bubbles: true }))"""
    driver.execute_script(script)
    assert one(driver, "#where").text.startswith("step 11 of")
    assert all(text.startswith("decision 2 of") and "made at step 10" in text for text in texts(driver, ".when"))


def test_the_keyboard_does_everything(driver: Any, panels: Panels) -> None:
    press(driver, "\ue014", "\ue014", "\ue012")
    assert step(driver) == 1
    press(driver, "]")
    assert step(driver) == 10
    press(driver, "]", "[")
    assert step(driver) == 10
    press(driver, "\ue010")
    assert step(driver) == length(panels, 0)
    press(driver, "\ue011")
    assert step(driver) == 0
    press(driver, "\ue015", "\ue015", "\ue013")
    assert episode(driver) == 2
    assert step(driver) == 0
    press(driver, "+", "+", "-")
    assert one(driver, "#speed").get_attribute("value") == "2"
    press(driver, "?")
    assert one(driver, "#keys").is_displayed()
    press(driver, "\ue00c")
    assert not one(driver, "#keys").is_displayed()


def test_arrow_keys_on_the_slider_move_one_step(driver: Any) -> None:
    driver.execute_script("document.getElementById('step').focus()")
    press(driver, "\ue014", "\ue014")
    assert step(driver) == 2


def test_space_on_a_focused_play_button_plays_once(driver: Any) -> None:
    driver.execute_script("document.getElementById('play').focus()")
    press(driver, " ")
    assert one(driver, "#play").get_attribute("aria-label") == "Pause"


def test_space_plays_after_a_click_on_another_button(driver: Any) -> None:
    one(driver, "#episodes button:nth-child(2)").click()
    press(driver, " ")
    assert one(driver, "#play").get_attribute("aria-label") == "Pause"


def test_an_episode_is_chosen_with_its_success_and_length(driver: Any, panels: Panels) -> None:
    buttons = driver.find_elements("css selector", "#episodes button")
    assert len(buttons) == 4
    buttons[2].click()
    assert episode(driver) == 3
    assert int(one(driver, "#step").get_attribute("max")) == length(panels, 2)
    for panel in panels:
        played = panel["episodes"][2]
        told = f"success at step {played['length']}" if played["success"] else f"no success in {played['length']} steps"
        assert f"{panel['title']}: {told}" in buttons[2].get_attribute("aria-label")


def test_an_agent_is_highlighted_in_all_views_by_pointer_and_by_focus(driver: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    hot = ".agent.hot, tr.hot, .lane.hot, .half.hot"
    ActionChains(driver).move_to_element(one(driver, ".panel:first-child tbody tr:nth-child(3) .badge")).perform()
    # In each panel: the agent, its row in two matrices, its rewards; and once between the panels.
    assert len(driver.find_elements("css selector", hot)) == 9
    assert "agent 2" in one(driver, "#tip").text
    press(driver, "\ue00c")
    assert driver.find_elements("css selector", hot) == []
    driver.execute_script("document.querySelector('.panel:last-child .agent').focus()")
    assert len(driver.find_elements("css selector", hot)) == 9
    assert "agent 0" in one(driver, "#tip").text


def test_a_cell_highlights_its_pair_and_tells_its_numbers(driver: Any, panels: Panels) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    cell = one(driver, ".panel:first-child table[data-kind=Scores] [data-pair='1,2']")
    ActionChains(driver).move_to_element(cell).perform()
    assert one(driver, ".panel:first-child .probe").get_attribute("visibility") == "visible"
    score = panels[0]["episodes"][0]["decisions"][0]["scores"][1][2]
    assert "agent 1, task C" in one(driver, "#tip").text
    assert f"score {score}" in one(driver, "#tip").text
    regret = panels[0]["episodes"][0]["decisions"][0]["regrets"][1][2]
    assert f"regret {regret}" in one(driver, "#tip").text


def test_every_control_has_a_name(driver: Any) -> None:
    script = """
        return [...document.querySelectorAll("button, input, select, [tabindex]")]
          .filter(node => !node.getAttribute("aria-label") && !node.textContent.trim() && !node.closest("label"))
          .map(node => node.outerHTML)"""
    assert driver.execute_script(script) == []


def test_reduced_motion_shows_whole_steps_only(browser: OpenPage, page: Path) -> None:
    driver = browser(page)
    media = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        driver = browser(page)
        script = """
            const done = arguments[0], seen = new Set(), started = performance.now()
            setPlaying(true)
            const look = now => {
              seen.add(document.querySelector(".agent circle").getAttribute("cx"))
              now - started < 1000 ? requestAnimationFrame(look) : done([seen.size, state.time])
            }
            requestAnimationFrame(look)"""
        places, steps = driver.execute_async_script(script)
        assert steps > 3
        assert places <= steps + 2
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_address_remembers_the_place(browser: OpenPage, page: Path) -> None:
    driver = browser(page)
    press(driver, "\ue015", "\ue014", "\ue014")
    assert driver.current_url.endswith("#episode=2&step=2")
    driver.refresh()
    assert (episode(driver), step(driver)) == (2, 2)


def test_a_policy_without_tasks_is_shown_alone(browser: OpenPage, tmp_path: Path) -> None:
    flat = played(small_config(algorithm="iql"), 2)
    driver = browser(write_replay_page(tmp_path / "flat.html", [flat]))
    assert texts(driver, ".when") == ["assigns no tasks"]
    assert "assigns no tasks" in one(driver, ".note").text
    assert len(driver.find_elements("css selector", "table[data-kind=Distances] tbody td")) == 15
    assert driver.find_elements("css selector", "table[data-kind=Scores]") == []
    press(driver, "\ue010")
    assert console_errors(driver) == []
    assert overflowing(driver) == [0, 0]


@pytest.mark.parametrize(("algorithm", "columns"), [("qmix", 2), ("vdn", 2), ("hsd", 8)])
def test_what_is_in_the_agents_is_shown_at_every_step(
    browser: OpenPage, tmp_path: Path, algorithm: str, columns: int
) -> None:
    panel = played(small_config(algorithm=algorithm), 2)
    choices = set(panel["choices"])
    assert choices == ({"skill"} if algorithm == "hsd" else set())
    driver = browser(write_replay_page(tmp_path / "inside.html", [panel]))
    cells = "table[data-kind=Internals] tbody td"
    for t in range(2):
        rows = panel["episodes"][0]["internals"].values()
        told = [x for i in range(5) for row in rows for x in np.ravel(row[t][i])]
        shown = [float(text.replace("\u2212", "-")) for text in texts(driver, cells)]
        assert len(shown) == 5 * columns
        assert shown == pytest.approx(told, abs=0.0051)
        # VDN's weights are all 1, and still not numbers of something.
        of = [cell.get_attribute("data-name") for cell in driver.find_elements("css selector", cells)]
        assert {name for name, text in zip(of, texts(driver, cells), strict=True) if "." not in text} == choices
        press(driver, "\ue014")
    assert console_errors(driver) == []
    assert overflowing(driver) == [0, 0]


def test_more_pairs_than_can_be_drawn_are_left_out(browser: OpenPage, tmp_path: Path) -> None:
    config = small_config("env_args.n_agents=60", "env_args.n_landmarks=50", "env_args.episode_limit=3")
    driver = browser(write_replay_page(tmp_path / "many.html", [played(config, 1)]))
    assert "too many to draw" in driver.page_source
    assert len(driver.find_elements("css selector", ".agent")) == 60
    press(driver, "\ue014")
    assert console_errors(driver) == []
