"""Controllers ("multi-agent controllers", MACs) by name."""

from components.registry import Registry

REGISTRY = Registry("mac")
REGISTRY.add("basic_mac", "controllers.basic_controller:BasicController", "controllers.basic_controller:BasicOptions")
REGISTRY.add(
    "lpmarl_mac", "controllers.lpmarl_controller:LpmarlController", "controllers.lpmarl_controller:LpmarlOptions"
)
REGISTRY.add(
    "dec_lpmarl_mac",
    "controllers.dec_lpmarl_controller:DecLpmarlController",
    "controllers.dec_lpmarl_controller:DecLpmarlOptions",
)
REGISTRY.add(
    "policy_mac", "controllers.policy_controller:PolicyController", "controllers.basic_controller:InputOptions"
)
REGISTRY.add(
    "separate_policy_mac",
    "controllers.policy_controller:SeparatePolicyController",
    "controllers.basic_controller:InputOptions",
)
REGISTRY.add("actor_mac", "controllers.actor_controller:ActorController")
REGISTRY.add("hsd_mac", "controllers.hsd_controller:HsdController", "controllers.hsd_controller:HsdOptions")
REGISTRY.add("rode_mac", "controllers.rode_controller:RodeController", "controllers.rode_controller:RodeOptions")
REGISTRY.add("ldsa_mac", "controllers.ldsa_controller:LdsaController", "controllers.basic_controller:BasicOptions")
