"""Small registries and a configuration folder, for tests of the configuration and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from components.config import Config, load_config
from components.errors import UserError
from components.registry import NoOptions, Options, Registry

PARTS = {
    "env": "support.fake_parts:ENVS",
    "runner": "support.fake_parts:RUNNERS",
    "mac": "support.fake_parts:MACS",
    "learner": "support.fake_parts:LEARNERS",
    "agent": "support.fake_parts:AGENTS",
    "critic": "absent_parts_package:REGISTRY",
    "mixer": "support.fake_parts:MIXERS",
}

DEFAULT_YAML = """\
runner: episode
mac: basic_mac
agent: rnn
critic: null
mixer: null
env_args: {}
seed: 1
t_max: 1000
batch_size_run: 4
buffer_size: 100
test_interval: 100
test_nepisode: 5
final_nepisode: 10
replay_nepisode: 0
log_interval: 100
use_tensorboard: false
use_cuda: false
torch_threads: 1
save_model: true
save_model_interval: 0
save_buffer: false
checkpoint_minutes: 0
checkpoint_path: ""
evaluate: false
local_results_path: results
label: ""
"""
ALGS = {
    "iql": "name: iql\nlearner: q_learner\nlr: 5e-4\n",
    "qmix": "name: qmix\nlearner: q_learner\nmixer: qmix\nlr: 1e-3\nmixing_embed_dim: 16\n",
    "tuned": "name: tuned\nlearner: q_learner\nenv_args:\n  n_agents: 7\n",
}
ENVS_YAML = {
    "navigation": "env: navigation\nt_max: 2000\nenv_args:\n  n_agents: 3\n  crowded: no\n",
    "battle": "env: battle\nenv_args:\n  map_name: 3m\n",
}


class NavigationOptions(Options):
    n_agents: int = Field(5, ge=1, description="agents")
    crowded: Literal["no", "yes"] = Field("no", description="whether landmarks are near each other")
    size: float = Field(1.0, gt=0, description="half width of the world")


class BattleOptions(Options):
    map_name: str = Field("8m", description="map")


class QOptions(Options):
    lr: float = Field(description="step size of the optimizer", gt=0)
    gamma: float = Field(0.99, ge=0, le=1, description="discount per environment step")
    optimizer: Literal["adam", "rmsprop"] = Field("adam", description="optimizer")
    double_q: bool = Field(True, description="double Q-learning")
    target_update_interval: int | None = Field(None, ge=1, description="train steps between target copies")
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field((64,), description="units of each layer")
    weights: list[float] = Field([], description="weights")
    schedule: dict[str, Any] = Field({}, description="schedule")
    warmup: int | Literal["auto"] = Field("auto", description="train steps of warm-up")
    epsilon_start: float = Field(1.0, description="first epsilon")
    epsilon_finish: float = Field(0.05, description="last epsilon")

    @model_validator(mode="after")
    def _falls(self) -> QOptions:
        if self.epsilon_finish > self.epsilon_start:
            raise ValueError("epsilon_finish must not exceed epsilon_start")
        return self


class CriticOptions(QOptions):
    critic_lr: float = Field(0.1, gt=0, description="step size of the critic")


class MacOptions(Options):
    gamma: float = Field(0.99, ge=0, le=1, description="")
    batch_size_run: int = Field(1, description="shared with the framework")


class OddMacOptions(Options):
    gamma: float = Field(0.5, description="another default")


class QmixOptions(Options):
    mixing_embed_dim: int = Field(32, ge=1, description="units of the mixing network")


ENVS = Registry("environment")
ENVS.add("navigation", "nowhere:Env", NavigationOptions)
ENVS.add("battle", "nowhere:Env", BattleOptions)
ENVS.add("game", "absent_game_package:Env", "absent_game_package:EnvOptions", package="absent_game_package")
RUNNERS = Registry("runner")
RUNNERS.add("episode", "nowhere:Runner", NoOptions)
MACS = Registry("controller")
MACS.add("basic_mac", "nowhere:Mac", MacOptions)
MACS.add("odd_mac", "nowhere:Mac", OddMacOptions)
LEARNERS = Registry("learner")
LEARNERS.add("q_learner", "nowhere:Learner", "support.fake_parts:QOptions")
LEARNERS.add("critic_learner", "nowhere:Learner", "support.fake_parts:CriticOptions")
AGENTS = Registry("agent")
AGENTS.add("rnn", "nowhere:Agent", NoOptions)
MIXERS = Registry("mixer")
MIXERS.add("qmix", "nowhere:Mixer", QmixOptions)
MIXERS.add("nmix", "nowhere:Mixer", QmixOptions)
MIXERS.add("broken", "absent_mixers:Mixer", "absent_mixers:MixerOptions")


def write_config_folder(folder: Path) -> Path:
    """Writes a small ``config`` folder and returns its path."""
    root = folder / "config"
    for part, files in (("algs", ALGS), ("envs", ENVS_YAML)):
        (root / part).mkdir(parents=True)
        for name, text in files.items():
            (root / part / f"{name}.yaml").write_text(text)
    (root / "default.yaml").write_text(DEFAULT_YAML)
    return root


def load_fake(root: Path, *overrides: str, config: str = "iql", env_config: str = "navigation") -> Config:
    """Loads from a folder that :func:`write_config_folder` wrote."""
    return load_config(config, env_config, overrides, root, PARTS)


def config_errors(root: Path, *overrides: str, config: str = "iql", env_config: str = "navigation") -> list[str]:
    """The lines of the error that loading must raise."""
    with pytest.raises(UserError) as caught:
        load_fake(root, *overrides, config=config, env_config=env_config)
    return str(caught.value).split("\n")
