"""Critics by name."""

from components.registry import Registry

REGISTRY = Registry("critic")
REGISTRY.add(
    "lpmarl", "modules.critics.lpmarl_critic:LpmarlCritic", "modules.critics.lpmarl_critic:LpmarlCriticOptions"
)
