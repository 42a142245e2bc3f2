"""Critics by name."""

from components.registry import Registry

REGISTRY = Registry("critic")
REGISTRY.add(
    "lpmarl", "modules.critics.lpmarl_critic:LpmarlCritic", "modules.critics.lpmarl_critic:LpmarlCriticOptions"
)
REGISTRY.add(
    "joint_action",
    "modules.critics.joint_action_critic:JointActionCritic",
    "modules.critics.joint_action_critic:JointActionCriticOptions",
)
REGISTRY.add(
    "attention",
    "modules.critics.attention_critic:AttentionCritic",
    "modules.critics.attention_critic:AttentionCriticOptions",
)
