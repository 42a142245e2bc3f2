"""Every table and figure that can be asked for, and where fights are played."""

from __future__ import annotations

from reproduction.catalog_fights import FIGHT_TABLES, FIGHTS, FIGHTS_IN_THE_GAME
from reproduction.catalog_navigation import NAVIGATION, NAVIGATION_TABLES

ALL = "all"
TABLES = (*NAVIGATION_TABLES, *FIGHT_TABLES)
ARTIFACTS = {artifact.name: artifact for artifact in (*NAVIGATION, *FIGHTS)}

# Where fights are played -> what can be made there; the first is where they are played unless `--env` says otherwise.
PLACES = {"skirmish": ARTIFACTS, "sc2": FIGHTS_IN_THE_GAME}
