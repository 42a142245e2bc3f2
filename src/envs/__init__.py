"""Environments by name. Entries are imported when chosen: picking one never imports the others' packages."""

from components.registry import Registry

REGISTRY = Registry("environment")
REGISTRY.add("constrained_navigation", "envs.navigation:Navigation", "envs.navigation:ConstrainedNavigationOptions")
REGISTRY.add("navigation", "envs.navigation:Navigation", "envs.navigation:NavigationOptions")
REGISTRY.add(
    "navigation_speeds", "envs.navigation_speeds:NavigationSpeeds", "envs.navigation_speeds:NavigationSpeedsOptions"
)
REGISTRY.add(
    "navigation_skills", "envs.navigation_skills:NavigationSkills", "envs.navigation_skills:NavigationSkillsOptions"
)
REGISTRY.add("matrix_game", "envs.matrix_games:MatrixGame", "envs.matrix_games:MatrixGameOptions")
REGISTRY.add("two_step_game", "envs.matrix_games:TwoStepGame", "envs.matrix_games:TwoStepGameOptions")
REGISTRY.add("skirmish", "envs.skirmish:Skirmish", "envs.skirmish:SkirmishOptions")
REGISTRY.add("sc2", "envs.starcraft2:StarCraft2", "envs.starcraft2_options:Sc2Options")
