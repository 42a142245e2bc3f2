"""Critics by name; agent networks with one output are value networks."""

from components.registry import Registry

REGISTRY = Registry("critic")
REGISTRY.add(
    "lpmarl", "modules.critics.lpmarl_critic:LpmarlCritic", "modules.critics.lpmarl_critic:LpmarlCriticOptions"
)
REGISTRY.add("mlp", "modules.agents.mlp_agent:MLPAgent", "modules.agents.mlp_agent:MLPOptions")
REGISTRY.add("gru", "modules.agents.gru_agent:GRUAgent", "modules.agents.gru_agent:GRUOptions")
REGISTRY.add(
    "separate_mlp", "modules.agents.separate_mlp_agent:SeparateMLPAgent", "modules.agents.mlp_agent:MLPOptions"
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
