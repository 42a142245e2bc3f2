"""Runners by name. They are one class; the name picks where the environments live."""

from components.registry import Registry

REGISTRY = Registry("runner")
REGISTRY.add("episode", "envs.vector:in_process", "runners.episode_runner:EpisodeRunnerOptions")
REGISTRY.add("parallel", "envs.vector:in_workers", "runners.episode_runner:ParallelRunnerOptions")
