"""Agent networks by name."""

from components.registry import Registry

REGISTRY = Registry("agent")
REGISTRY.add("mlp", "modules.agents.mlp_agent:MLPAgent", "modules.agents.mlp_agent:MLPOptions")
REGISTRY.add("gru", "modules.agents.gru_agent:GRUAgent", "modules.agents.gru_agent:GRUOptions")
REGISTRY.add(
    "mlp_per_agent", "modules.agents.mlp_per_agent:MLPPerAgent", "modules.agents.mlp_per_agent:MLPPerAgentOptions"
)
REGISTRY.add("lpmarl", "modules.agents.lpmarl_agent:LpmarlAgent", "modules.agents.lpmarl_agent:LpmarlAgentOptions")
REGISTRY.add(
    "dec_lpmarl",
    "modules.agents.dec_lpmarl_agent:DecLpmarlAgent",
    "modules.agents.dec_lpmarl_agent:DecLpmarlAgentOptions",
)
REGISTRY.add(
    "separate_mlp", "modules.agents.separate_mlp_agent:SeparateMLPAgent", "modules.agents.mlp_agent:MLPOptions"
)
REGISTRY.add("hsd", "modules.agents.hsd_agent:HsdAgent", "modules.agents.hsd_agent:HsdAgentOptions")
REGISTRY.add("rode", "modules.agents.rode_agent:RodeAgent", "modules.agents.rode_agent:RodeAgentOptions")
REGISTRY.add("ldsa", "modules.agents.ldsa_agent:LdsaAgent", "modules.agents.ldsa_agent:LdsaAgentOptions")
