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
REGISTRY.add("hsd_mac", "controllers.hsd_controller:HsdController", "controllers.hsd_controller:HsdOptions")
