"""Mixers by name: from the agents' values to the team's."""

from components.registry import Registry

REGISTRY = Registry("mixer")
REGISTRY.add("vdn", "modules.mixers.vdn:VDNMixer")
REGISTRY.add("qmix", "modules.mixers.qmix:QMixer", "modules.mixers.qmix:QMixOptions")
REGISTRY.add("qplex", "modules.mixers.qplex:QPlexMixer", "modules.mixers.qplex:QPlexOptions")
