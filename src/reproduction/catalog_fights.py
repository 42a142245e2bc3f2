"""The tables and figures of fights: which runs and measurements each is made of."""

from __future__ import annotations

from reproduction.artifacts import Artifact, of_curves, of_table, trained
from reproduction.fights import write_fight
from reproduction.specs import EVENTS, STEPS, WON, Curves, Line, Panel, Runs, Source, Table

_COMBAT = {
    "lpmarl": "LPMARL",
    "lpmarl_no_limit": "LPMARL without limit",
    "dec_lpmarl": "Dec-LPMARL",
    "no_lp": "No-LP",
    "lp_distance": "LP-distance",
    "random_feasible": "random feasible",
    "qmix": "QMIX",
    "vdn": "VDN",
    "rode": "RODE",
    "seac": "SEAC",
    "ldsa": "LDSA",
    "mappo": "MAPPO",
    "qmix_dense": "QMIX, dense reward",
    "qmix_levels": "QMIX, LPMARL's rewards",
    "mappo_levels": "MAPPO, LPMARL's rewards",
    "seac_levels": "SEAC, LPMARL's rewards",
    "ldsa_levels": "LDSA, LPMARL's rewards",
}
_MAPS = ("3m", "8m", "3s_vs_5z", "2m_vs_1z")
# Where there is one enemy these assign as LPMARL does.
_ASSIGN_ALIKE = ("lpmarl_no_limit", "dec_lpmarl", "no_lp", "lp_distance", "random_feasible")
_FIGHTS = {f"{level}_{name}": f"{name}, {level}" for level in ("easy", "medium") for name in _MAPS}
_LONGER = "long_3s_vs_5z"
_LONGER_TITLE = "3s_vs_5z, medium, 600k steps"
# The rows of the sets that are about the assignment alone.
_LIMITED = ("lpmarl", "lpmarl_no_limit", "lp_distance", "random_feasible")
_FLAT_LIMITED = ("mappo_levels", "qmix_levels")
_IN_FIGHTS = (
    "The flat reward is 1 for a win and -1 for a defeat, but for the columns of dense rewards and of LPMARL's. LPMARL "
    "and its relatives do not use it: agents earn what their own attacks do to their enemy, assignments the exchange "
    "of health and units; RODE's actions and roles learn from the same two, the columns of LPMARL's rewards from half "
    "of one and half of the other. QMIX, VDN, RODE and LDSA update once for eight episodes; RODE and QMIX with an "
    "update for every one are the set `combat_each` (docs/decisions/032). 2m_vs_1z has one enemy, so that every "
    "assignment is the same there: whoever assigns is LPMARL."
)


def _rows_on(column: str) -> list[str]:
    return [row for row in _COMBAT if not (column.endswith("2m_vs_1z") and row in _ASSIGN_ALIKE)]


TABLE3 = Table(
    "table3",
    "Table 3 on the simulator: battles won (not StarCraft II, whose win rates are other numbers)",
    (WON, STEPS),
    _COMBAT,
    {**_FIGHTS, _LONGER: _LONGER_TITLE},
    {
        cell: source
        for column in _FIGHTS
        for cell, source in trained(
            "combat_kiting" if column.endswith("3s_vs_5z") else "combat", _rows_on(column), [column]
        ).items()
    }
    | trained("combat_kiting_long", list(_LIMITED), [_LONGER]),
    in_paper=False,
    settings_down=True,
    note=f"{_IN_FIGHTS} The environment steps of a column are equal: 200,000, and 300,000 on 3s_vs_5z, whose low level "
    "looks further ahead (`gamma_low: 0.97`); the last setting is that one with twice the steps.",
)
TABLE3_GAME = Table(
    "table3_sc2",
    "Table 3 in StarCraft II: battles won",
    (WON, STEPS),
    _COMBAT,
    {f"sc2_{name}": name for name in _MAPS},
    {cell: source for name in _MAPS for cell, source in trained("starcraft", _rows_on(name), [f"sc2_{name}"]).items()},
    in_paper=False,
    settings_down=True,
    note=_IN_FIGHTS,
)
_LIMITS = {"two_groups": "two groups, limit: half of the enemies", "missiles": "missiles, limit: shots to kill"}
LIMITS = Table(
    "limits",
    "Fights in which a limit is worth something: battles won",
    (WON, STEPS),
    {row: _COMBAT[row] for row in (*_LIMITED, *_FLAT_LIMITED)},
    _LIMITS,
    trained("combat_limits", list(_LIMITED), list(_LIMITS))
    | trained("combat_limits_flat", list(_FLAT_LIMITED), list(_LIMITS)),
    in_paper=False,
    settings_down=True,
    note="On the simulator. LPMARL without limit has none, the others that assign have the limit that the setting "
    "names. Two groups took 200,000 environment steps, missiles 100,000. The flat reward is half of what LPMARL's "
    "assignments earn and half of what its agents do.",
)

_ASSIGNED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "lpmarl": ("LPMARL's scores", ()),
    "lp_distance": ("LP on the distance", ("high_policy=lp_distance",)),
    "greedy": ("nearest enemy, no limit", ("high_policy=greedy",)),
    "random_feasible": ("random feasible", ("high_policy=random_feasible",)),
}
_OF_LPMARL = {
    "medium_3m": ("combat", "3m, medium"),
    "medium_8m": ("combat", "8m, medium"),
    "medium_3s_vs_5z": ("combat_kiting", "3s_vs_5z, medium"),
    _LONGER: ("combat_kiting_long", _LONGER_TITLE),
    "two_groups": ("combat_limits", "two groups"),
    "missiles": ("combat_limits", "missiles"),
}
ASSIGNERS = Table(
    "assigners",
    "Who assigns in a fight: battles won by the low level of LPMARL's runs",
    (WON,),
    {key: title for key, (title, _) in _ASSIGNED_BY.items()},
    {key: title for key, (_, title) in _OF_LPMARL.items()},
    {
        (row, column): Source(Runs(owner, "lpmarl", column), overrides)
        for row, (_, overrides) in _ASSIGNED_BY.items()
        for column, (owner, _) in _OF_LPMARL.items()
    },
    in_paper=False,
    settings_down=True,
    note="On the simulator. All play the low level that LPMARL's runs learned; what assigns the enemies differs.",
)
_OVER_TRAINING = _OF_LPMARL | {"easy_3s_vs_5z": ("combat_kiting", "3s_vs_5z, easy")}
WON_OVER_TRAINING = Curves(
    "fights",
    "Battles won over training",
    tuple(
        Panel(
            title,
            WON.title,
            "test_battle_won_mean",
            tuple(
                Line(Runs(owner, row, key), _COMBAT[row], index, index)
                for index, row in enumerate(("lpmarl", *_ASSIGN_ALIKE, "qmix", "rode"))
                if owner in ("combat", "combat_kiting") or row in _LIMITED
            ),
            WON.scale,
            share=True,
        )
        for key, (owner, title) in _OVER_TRAINING.items()
    ),
    across=4,
)

_FIG8 = "Figure 8: the assignments of a fight"
FIG8_FIGHT = Source(Runs("combat", "lpmarl", "medium_8m", first_seed=True), kind=EVENTS)
FIGHTS = (
    of_table(TABLE3),
    of_table(LIMITS),
    of_table(ASSIGNERS),
    of_curves(WON_OVER_TRAINING),
    Artifact("fig8", _FIG8, (FIG8_FIGHT,), lambda study, _, out: write_fight("fig8", _FIG8, FIG8_FIGHT, study, out)),
)
FIGHT_TABLES = (TABLE3, LIMITS, ASSIGNERS)
FIGHTS_IN_THE_GAME = {"table3": of_table(TABLE3_GAME)}
