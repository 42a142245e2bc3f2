"""The levels of the simulator, held by scripted battles: who changes a level here changes what every table means."""

import json

import pytest
from benchmarks.skirmish_scripts import TABLES, Fight, Script, main, read_script, win_rate

from components.yaml_loader import load_yaml
from envs.skirmish import SIMULATOR_VERSION

EPISODES = 200
SCRIPTS = {name: read_script(values) for name, values in load_yaml(TABLES).values["scripts"].items()}


def test_the_version_of_the_simulator():
    # Raised together with the numbers below.
    assert SIMULATOR_VERSION == 1


@pytest.mark.parametrize(
    ("fight", "script", "least", "most"),
    [
        (Fight("3m", 1.2), "greedy", 85, 100),
        (Fight("3m", 1.2), "lp_distance", 42, 68),
        (Fight("3m", 1.2), "random_feasible", 10, 33),
        (Fight("3m", 1.0), "greedy", 28, 54),
        (Fight("8m", 1.1), "focus_weakest", 73, 96),
        (Fight("8m", 1.1), "lp_distance", 28, 56),
        (Fight("8m", 1.1), "random_feasible", 0, 3),
        (Fight("3s_vs_5z", 1.0, "flee_from_all", limit=150), "lp_mix_each_step", 95, 100),
        (Fight("3s_vs_5z", 1.0, "stand", limit=150), "greedy", 0, 3),
        # One enemy, that two marines beat at medium only if the one it is after runs for as long as it is.
        (Fight("2m_vs_1z", None, "hunted_run", difficulty="medium"), "greedy", 95, 100),
        (Fight("2m_vs_1z", None, "hunted_run"), "greedy", 0, 3),
        (Fight("2m_vs_1z", None, "flee_from_hunter", difficulty="medium"), "greedy", 0, 3),
        # What a limit of agents per enemy is worth: volleys in flight, and two groups against the clock.
        (Fight("8m_missiles", 1.0), "range_health_shots_each_step", 82, 100),
        (Fight("8m_missiles", 1.0), "focus_weakest", 15, 45),
        (Fight("two_groups_4_4", 1.2, go_in=True), "lp_mix_each_step", 40, 66),
        (Fight("two_groups_4_4", 1.2, go_in=True), "mix_no_limit_each_step", 8, 33),
    ],
)
def test_levels(fight, script, least, most):
    assert least <= win_rate(fight, SCRIPTS[script], EPISODES) <= most


def test_harder_levels_are_harder():
    rates = [
        win_rate(Fight("3m", cooldown), Script("distance", "paper", False), EPISODES) for cooldown in (1.5, 1.2, 1)
    ]
    assert rates[0] > rates[1] > rates[2]


def test_the_command(tmp_path, capsys):
    assert main([str(tmp_path), "--episodes", "10", "--map", "flanks_4_4"]) == 0
    assert "focus_weakest" in capsys.readouterr().out
    written = json.loads((tmp_path / "skirmish_scripts.json").read_text())
    assert written["tables"][0]["won"]["one_each"] == [0.0]
    assert "| flanks_4_4: % won |" in (tmp_path / "skirmish_scripts.md").read_text()
