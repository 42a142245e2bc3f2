"""The tables and figures of navigation: which runs and measurements each is made of."""

from __future__ import annotations

from reproduction.artifacts import Artifact, of_curves, of_table, trained
from reproduction.beyond import Grouping, Pair, write_bars, write_scores
from reproduction.curves import METHOD, write_curves
from reproduction.output import Output
from reproduction.paper import PaperNumbers
from reproduction.pictures import write_coefficients, write_path
from reproduction.specs import (
    AGREEMENT,
    DECISIONS,
    IMITATION,
    MIN_DISTANCE,
    PATH,
    STEPS,
    SUCCESS,
    Curves,
    Line,
    Panel,
    Runs,
    Source,
    Table,
)
from reproduction.study import Study
from reproduction.tables import write_table

ONCE = ("redecide=start",)
_SIZES = {"m3_n5": "(3,5)", "m5_n7": "(5,7)"}
_METHODS = {
    "lpmarl": "LPMARL",
    "dec_lpmarl": "Dec-LPMARL",
    "dec_lpmarl_full_view": "Dec-LPMARL, full view",
    "no_lp": "No-LP",
    "lp_distance": "LP-distance",
    "greedy": "greedy",
    "random_feasible": "random feasible",
}

_BASELINES = {
    "qmix": "QMIX",
    "maddpg": "MADDPG",
    "maac": "MAAC",
    "hsd": "HSD",
    "rode": "RODE",
    "ldsa": "LDSA",
    "mappo": "MAPPO",
}


def _named(*rows: str) -> dict[str, str]:
    return {row: _METHODS[row] for row in rows}


TABLE1 = Table(
    "table1",
    "Table 1: constrained navigation",
    (SUCCESS, STEPS, AGREEMENT, MIN_DISTANCE),
    _METHODS | _BASELINES,
    _SIZES,
    trained("constrained", list(_METHODS), list(_SIZES))
    | trained("constrained_baselines", list(_BASELINES), list(_SIZES)),
    note="Settings are (M, N): M landmarks, N agents. Each number is the final evaluation of the trained runs. The "
    "baselines have one setting for all (64 units, Adam 1e-3; with a replay an update of 32 episodes for every "
    "episode, RODE and LDSA for every eight) and as many environment steps; they assign nobody, so that they agree "
    "with no assignment, and learn from rewards that do not pay for putting success off: `reach_reward: delta`, HSD "
    "and RODE `first` (docs/decisions/030).",
)
TABLE1_TUNED = Table(
    "table1_tuned",
    "Table 1 once more: every baseline with the best of its own settings",
    (SUCCESS, STEPS, MIN_DISTANCE),
    _named("lpmarl") | _BASELINES,
    _SIZES,
    trained("constrained", ["lpmarl"], list(_SIZES)) | trained("baseline_tuned", list(_BASELINES), list(_SIZES)),
    in_paper=False,
    note="Each baseline has the best of eight settings, by its return at (3, 5) with a seed that is not one of these "
    "five (HSD by its success): benchmarks/baseline_search.yaml; what was chosen is in benchmarks/baseline_tuned.yaml. "
    "LPMARL and all else as in table 1.",
)
_PLAIN = {f"{kind}_n{n}": f"{kind}, N = {n}" for kind in ("sparse", "dense") for n in (3, 5, 7)}
TABLE6 = Table(
    "table6",
    "Table 6: plain navigation",
    (SUCCESS, STEPS, AGREEMENT, MIN_DISTANCE),
    _named("lpmarl", "dec_lpmarl") | _BASELINES,
    _PLAIN,
    trained("plain", ["lpmarl", "dec_lpmarl"], list(_PLAIN)) | trained("plain_common", list(_BASELINES), list(_PLAIN)),
    settings_down=True,
    note="As many landmarks as agents, one each; sparse and dense rewards. The baselines are those of table 1: one "
    "setting for all, as many environment steps, the same rules for reaching a landmark. What they do with more steps "
    "and settings of their own is in results/published/baselines.",
)
_CROWDED = _SIZES | {"m10_n10": "(10,10)"}
CROWDED = Table(
    "crowded",
    "Crowded constrained navigation",
    (SUCCESS, STEPS, AGREEMENT),
    _named("lpmarl", "lp_distance", "random_feasible"),
    _CROWDED,
    trained("crowded", ["lpmarl", "lp_distance", "random_feasible"], list(_CROWDED)),
    in_paper=False,
    note="Agents of radius 0.15 and landmarks of radius 0.3. Settings are (M, N).",
)

_DRAWN = "drawn_3_to_10"
_NUMBERS = (3, 5, 10, 15, 20)
_CELLS = {f"m{m}_n{n}": (m, n) for n in _NUMBERS for m in _NUMBERS if m <= n}


def _fixed_size(m: int, n: int) -> tuple[str, ...]:
    """The overrides that fix the sizes which the training drew."""
    given = {"n_agents": str(n), "n_landmarks": str(m), "min_agents": "null", "min_landmarks": "null"}
    return tuple(f"env_args.{key}={value}" for key, value in given.items())


# Row -> the algorithm that was trained, and how it is played beside the size.
_TRANSFERRED: dict[str, tuple[str, tuple[str, ...]]] = {
    "lpmarl": ("lpmarl", ()),
    "lp_distance_oracle": ("lpmarl", ("high_policy=lp_distance",)),
    "dec_lpmarl": ("dec_lpmarl", ()),
    "no_lp": ("no_lp", ()),
}
TABLE2 = Table(
    "table2",
    "Table 2: transfer to other sizes",
    (SUCCESS,),
    _named("lpmarl") | {"lp_distance_oracle": "LP-distance, LPMARL's low level"} | _named("dec_lpmarl", "no_lp"),
    {key: f"({m},{n})" for key, (m, n) in _CELLS.items()},
    {
        (row, key): Source(Runs("sizes", algorithm, _DRAWN), (*_fixed_size(m, n), *played))
        for key, (m, n) in _CELLS.items()
        for row, (algorithm, played) in _TRANSFERRED.items()
    },
    settings_down=True,
    note="Trained on 3 to 10 agents and landmarks, drawn in every episode; played at (M, N) without further training.",
)

_SPEEDS, _SKILLS = Grouping(4, None, ("slow agent", "fast agent")), Grouping(4, 3, ("other type", "matching type"))
_BEYOND = {
    "speeds_m3_n5": ("speeds (3,5)", _SPEEDS),
    "speeds_m5_n7": ("speeds (5,7)", _SPEEDS),
    "skills_m3_n5": ("skills (3,5)", _SKILLS),
    "skills_m5_n7": ("skills (5,7)", _SKILLS),
}


def _least(cost: str, *more: str) -> tuple[str, ...]:
    return ("high_policy=lp_cost", f"assignment_cost={cost}", *more)


# Key -> (title, overrides, the group of settings that it belongs to; None: all).
_ORACLES: dict[str, tuple[str, tuple[str, ...], Grouping | None]] = {
    "lpmarl": ("LPMARL", (), None),
    "travel_time": ("travel time", _least("travel_time"), None),
    "travel_time_3": ("travel time³", _least("travel_time", "cost_power=3"), None),
    "distance": ("distance", ("high_policy=lp_distance",), None),
    "distance_8": ("distance⁸", _least("distance", "cost_power=8"), None),
    "distance_over_acceleration": ("distance / acceleration", _least("distance_over_acceleration"), _SPEEDS),
    "mismatch": ("types only", _least("mismatch"), _SKILLS),
    "random_feasible": ("random feasible", ("high_policy=random_feasible",), None),
    "greedy": ("greedy", ("high_policy=greedy",), None),
}
_PAIRS = [Pair(title, key, f"{key}_once") for key, (title, _, _) in _ORACLES.items()]
BEYOND = Table(
    "beyond",
    "Beyond distance: learned scores against given assignments",
    (SUCCESS,),
    {pair.often: f"{pair.title}, re-decided" for pair in _PAIRS}
    | {pair.once: f"{pair.title}, once" for pair in _PAIRS},
    {column: title for column, (title, _) in _BEYOND.items()},
    {
        (f"{key}{suffix}", column): Source(Runs("beyond_distance", "lpmarl", column), (*overrides, *once))
        for key, (_, overrides, only) in _ORACLES.items()
        for suffix, once in (("", ()), ("_once", ONCE))
        for column, (_, grouping) in _BEYOND.items()
        if only in (None, grouping)
    },
    in_paper=False,
    note="All rows play the low level of the trained LPMARL runs; they differ in what assigns the tasks, and in "
    "whether that is re-decided every 10 steps or decided once.",
)
_DECISIONS = {
    title: (Source(Runs("beyond_distance", "lpmarl", column), ONCE, DECISIONS), grouping)
    for column, (title, grouping) in _BEYOND.items()
}


def _write_beyond(study: Study, paper: PaperNumbers, output: Output) -> None:
    write_table(BEYOND, study, paper, output)
    write_bars("beyond_bars", BEYOND, _PAIRS, SUCCESS, study, output)
    title = "Learned scores against true travel time"
    write_scores("beyond_scores", title, "travel_time", _DECISIONS, study, output)


FIG2_STATE = Source(Runs("constrained", "lpmarl", "m3_n5", first_seed=True), ONCE, DECISIONS)
FIG3_EPISODE = Source(
    Runs("sizes", "lpmarl", _DRAWN, first_seed=True), (*_fixed_size(4, 10), "env_args.capacities=[1,2,3,4]"), PATH
)

_PLAIN_SIZES = (3, 5, 7)
_REWARDS = {
    "constrained": [(title, "constrained", key) for key, title in _SIZES.items()],
    **{f"plain, {kind}": [(f"N = {n}", "plain", f"{kind}_n{n}") for n in _PLAIN_SIZES] for kind in ("sparse", "dense")},
}
FIG5 = Curves(
    "fig5",
    "Figure 5: rewards of both levels over training",
    tuple(
        Panel(
            title,
            f"test {level}-level return",
            f"test_{level}_return_mean",
            tuple(
                # Sizes of the constrained task and of the plain one are different things, and have different colors.
                Line(Runs(owner, row, environment), f"{_METHODS[row]}, {size}", look + 2 * (owner == "plain"), dash)
                for look, (size, owner, environment) in enumerate(settings)
                for dash, row in enumerate(("lpmarl", "dec_lpmarl"))
            ),
        )
        for level in ("high", "low")
        for title, settings in _REWARDS.items()
    ),
    across=3,
)
_IMITATION = {f"constrained_{key}": ("constrained", f"constrained {title}") for key, title in _SIZES.items()}
_IMITATION |= {key: ("plain", title) for key, title in _PLAIN.items()}
FIG6_TABLE = Table(
    "fig6",
    "Figure 6: imitation accuracy of Dec-LPMARL over training",
    (IMITATION,),
    _named("dec_lpmarl"),
    {key: title for key, (_, title) in _IMITATION.items()},
    {
        ("dec_lpmarl", key): Source(Runs(owner, "dec_lpmarl", key.removeprefix("constrained_")))
        for key, (owner, _) in _IMITATION.items()
    },
    settings_down=True,
    note=f"![imitation accuracy](fig6.png)\n\nShare of agents whose own choice is LPMARL's, on the states of the "
    f"replay buffer that were last learned from. {METHOD} The numbers are those at the end of training.",
)
FIG6 = Curves(
    "fig6",
    FIG6_TABLE.title,
    tuple(
        Panel(
            panel,
            IMITATION.title,
            IMITATION.name,
            tuple(
                Line(
                    Runs(owner, "dec_lpmarl", environment),
                    size,
                    look + 2 * (owner == "plain"),
                    paper=("dec_lpmarl", key),
                )
                for look, (size, owner, environment) in enumerate(settings)
                for key in [f"constrained_{environment}" if owner == "constrained" else environment]
            ),
            IMITATION.scale,
            share=True,
        )
        for panel, settings in _REWARDS.items()
    ),
    across=3,
)
FIG7 = Curves(
    "fig7",
    "Figure 7: success over training by what assigns the tasks",
    tuple(
        Panel(
            f"constrained {title}",
            SUCCESS.title.replace("success", "test success"),
            "test_success_mean",
            tuple(
                Line(Runs("constrained", row, size), _METHODS[row], index, index)
                for index, row in enumerate(("lpmarl", "no_lp", "lp_distance", "greedy", "random_feasible"))
            ),
            SUCCESS.scale,
            share=True,
        )
        for size, title in _SIZES.items()
    ),
    across=2,
)


def _write_imitation(study: Study, paper: PaperNumbers, output: Output) -> None:
    write_curves(FIG6, study, paper, output)
    write_table(FIG6_TABLE, study, paper, output)


_FIG2, _FIG3 = "Figure 2: learned scores of one state beside the distances", "Figure 3: an episode of 10 agents"
NAVIGATION = (
    of_table(TABLE1),
    of_table(TABLE1_TUNED),
    of_table(TABLE2),
    of_table(TABLE6),
    Artifact(
        "fig2", _FIG2, (FIG2_STATE,), lambda study, _, out: write_coefficients("fig2", _FIG2, FIG2_STATE, study, out)
    ),
    Artifact("fig3", _FIG3, (FIG3_EPISODE,), lambda study, _, out: write_path("fig3", _FIG3, FIG3_EPISODE, study, out)),
    of_curves(FIG5),
    Artifact(FIG6.name, FIG6.title, tuple(FIG6_TABLE.cells.values()), _write_imitation),
    of_curves(FIG7),
    of_table(CROWDED),
    Artifact(
        BEYOND.name,
        BEYOND.title,
        (*BEYOND.cells.values(), *(source for source, _ in _DECISIONS.values())),
        _write_beyond,
    ),
)
NAVIGATION_TABLES = (TABLE1, TABLE1_TUNED, TABLE2, TABLE6, FIG6_TABLE, CROWDED, BEYOND)
