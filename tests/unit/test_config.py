from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from support import fake_parts
from support.fake_parts import config_errors, load_fake, write_config_folder

from components.config import PARTS, RunOptions, load_config
from components.config_layers import CONFIG_ROOT
from components.errors import UserError
from components.yaml_loader import load_yaml


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_config_folder(tmp_path)


def _append(root: Path, file: str, text: str) -> None:
    with (root / file).open("a") as stream:
        stream.write(text)


def test_layers_override_each_other_in_order(root: Path) -> None:
    config = load_fake(root, "seed=3", "env_args.size=2", "lr=0.1", config="tuned")
    assert config.values["seed"] == 3
    assert config.values["t_max"] == 2000
    assert config.values["env_args"] == {"n_agents": 7, "crowded": "no", "size": 2.0}
    expected = {
        "seed": "command line",
        "batch_size_run": "config/default.yaml:9",
        "t_max": "config/envs/navigation.yaml:2",
        "env_args.crowded": "config/envs/navigation.yaml:5",
        "env_args.n_agents": "config/algs/tuned.yaml:4",
        "env_args.size": "command line",
        "learner": "config/algs/tuned.yaml:2",
        "optimizer": "default of learner 'q_learner'",
    }
    assert {key: config.sources[key] for key in expected} == expected


def test_a_file_builds_on_the_one_that_its_base_names(root: Path) -> None:
    (root / "algs/child.yaml").write_text("# a comment\nbase: tuned\nname: child\nenv_args: {size: 9.0}\n")
    (root / "algs/grandchild.yaml").write_text("base: child\nname: grandchild\n")
    below, found = load_fake(root, "lr=0.1", config="tuned"), load_fake(root, "lr=0.1", config="grandchild")
    assert found.values["name"] == "grandchild"
    assert found.values["env_args"] == below.values["env_args"] | {"size": 9.0}
    assert found.sources["env_args.size"] == "config/algs/child.yaml:4"
    assert found.sources["env_args.n_agents"] == "config/algs/tuned.yaml:4"
    assert "base" not in found.values
    kept = {key: value for key, value in found.values.items() if key not in ("name", "env_args")}
    assert kept == {key: value for key, value in below.values.items() if key not in ("name", "env_args")}


@pytest.mark.parametrize("base", ["tuner", "child", "ring", "[tuned]", "null", "../default"])
def test_a_base_that_is_missing_or_goes_in_a_circle_is_refused(root: Path, base: str) -> None:
    (root / "algs/child.yaml").write_text(f"name: child\nbase: {base}\n")
    (root / "algs/ring.yaml").write_text("base: child\n")
    [error] = config_errors(root, config="child")
    expected = "config/algs/ring.yaml:1: base = 'child'" if base == "ring" else "config/algs/child.yaml:2: base = "
    assert error.startswith(expected)
    assert "expected another file of config/algs" in error
    assert "tuned" in error


def test_defaults_of_the_environment_are_recorded(root: Path) -> None:
    config = load_fake(root)
    assert config.values["env_args"]["size"] == 1.0
    assert config.sources["env_args.size"] == "default of env 'navigation'"
    assert config.run.env_args == config.values["env_args"]


def test_parts_get_their_own_options(root: Path) -> None:
    config = load_fake(root, "batch_size_run=8", config="qmix")
    assert set(config.parts) == {"env", "runner", "mac", "learner", "agent", "mixer"}
    assert config.parts["mixer"] == fake_parts.QmixOptions(mixing_embed_dim=16)
    assert config.parts["env"] == fake_parts.NavigationOptions(n_agents=3)
    assert config.parts["mac"] == fake_parts.MacOptions(batch_size_run=8)
    assert config.run.batch_size_run == 8
    assert config.unused == ()


def test_every_recorded_key_has_a_source_and_a_description(root: Path) -> None:
    config = load_fake(root, config="qmix")
    keys = set(config.values) - {"env_args"} | {f"env_args.{key}" for key in config.values["env_args"]}
    assert set(config.sources) == set(config.descriptions) == keys
    assert config.descriptions["gamma"] == "discount per environment step"
    assert all(config.descriptions.values())
    assert json.loads(json.dumps(config.values)) == config.values


def test_the_configuration_is_frozen_and_travels(root: Path) -> None:
    config = load_fake(root)
    with pytest.raises(FrozenInstanceError):
        config.values = {}  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("t_max=1e6", "t_max", 1_000_000),
        ("lr=1", "lr", 1.0),
        ("lr=5e-4", "lr", 0.0005),
        ("layers=[32, 1e2]", "layers", [32, 100]),
        ("weights=[1, 2.5]", "weights", [1.0, 2.5]),
        ("target_update_interval=2e2", "target_update_interval", 200),
        ("target_update_interval=None", "target_update_interval", None),
        ("warmup=1e3", "warmup", 1000),
        ("double_q=False", "double_q", False),
        ("label=", "label", ""),
        ("label=a_b.c-1", "label", "a_b.c-1"),
        ("name=qmix_env=8_adam", "name", "qmix_env=8_adam"),
        ("schedule.start=3", "schedule", {"start": 3}),
        ("optimizer=rmsprop", "optimizer", "rmsprop"),
    ],
)
def test_accepted_values(root: Path, override: str, key: str, value: Any) -> None:
    recorded = load_fake(root, override).values[key]
    assert recorded == value
    assert type(recorded) is type(value)


def test_contradicting_defaults_are_settled_by_a_value(root: Path) -> None:
    assert load_fake(root, "mac=odd_mac", "gamma=0.9").values["gamma"] == 0.9


def test_long_values_are_cut(root: Path) -> None:
    (message,) = config_errors(root, "lr=" + "x" * 500)
    assert len(message) < 160


def test_faults_in_files_name_file_and_line(root: Path) -> None:
    _append(root, "algs/iql.yaml", "gamma: 2\nlrr: 1\n")
    _append(root, "envs/navigation.yaml", "  size: big\n  sise: 1\n")
    assert config_errors(root) == [
        "env_args.sise (config/envs/navigation.yaml:7): unknown key; did you mean 'env_args.size'?",
        "env_args.size = 'big' (config/envs/navigation.yaml:6): expected a number > 0, not a text",
        "gamma = 2 (config/algs/iql.yaml:4): expected a number >= 0 and <= 1",
        "lrr (config/algs/iql.yaml:5): unknown key; did you mean 'lr'?",
    ]


def test_all_mistakes_are_reported_together(root: Path) -> None:
    assert config_errors(root, "lr=abc", "seed=-1", "mixer=qmx", "foo_bar_baz=1") == [
        "foo_bar_baz (command line): unknown key; print_config lists all keys",
        "lr = 'abc' (command line): expected a number > 0, not a text",
        "mixer = 'qmx' (command line): unknown mixer 'qmx'; did you mean 'qmix'? Known: broken, nmix, qmix",
        "seed = -1 (command line): expected an integer >= 0 and <= 4294967295",
    ]


def test_keys_of_a_misspelt_part_are_not_reported_too(root: Path) -> None:
    errors = config_errors(root, "learner=q_lerner", "gamma=0.5", "critic_lr=1")
    assert len(errors) == 1
    assert errors[0].startswith("learner = 'q_lerner' (command line): unknown learner")


def test_missing_options_say_who_needs_them(root: Path) -> None:
    (root / "algs/iql.yaml").write_text("learner: q_learner\n")
    assert config_errors(root) == [
        "lr: missing, but learner 'q_learner' needs it: expected a number > 0",
        "name: missing, but the framework needs it: expected a text of length >= 1 and of length <= 100",
    ]


def test_missing_selector_is_one_line(root: Path) -> None:
    (root / "algs/iql.yaml").write_text("name: iql\n")
    assert config_errors(root, "lr=0.1") == ["learner: missing, but the framework needs it: expected a text or null"]


def test_keys_of_a_part_that_was_not_chosen_are_left_out(root: Path) -> None:
    config = load_fake(root, "mixer=null", "env=battle", config="qmix")
    assert config.unused == (
        "mixing_embed_dim (config/algs/qmix.yaml:5) is not used: it belongs to mixer 'nmix', 'qmix'; "
        "this run has mixer: null",
        "env_args.n_agents (config/envs/navigation.yaml:4) is not used: it belongs to env 'navigation'; "
        "this run has env: 'battle'",
        "env_args.crowded (config/envs/navigation.yaml:5) is not used: it belongs to env 'navigation'; "
        "this run has env: 'battle'",
    )
    assert "mixing_embed_dim" not in config.values
    assert config.values["env_args"] == {"map_name": "8m"}


def test_an_absent_package_is_one_line(root: Path) -> None:
    (message,) = config_errors(root, "env=game", "env_args.whatever=1")
    assert message == (
        "env = 'game' (command line): environment 'game' needs the package 'absent_game_package', "
        "which is not installed: pip install absent_game_package"
    )


def test_a_null_part_does_not_import_its_registry(root: Path) -> None:
    # The registry of critics does not exist here.
    assert "critic" not in load_fake(root).parts


@pytest.mark.parametrize("name", ["../secret", "algs/iql", "..", "/etc/passwd", "a\\b", ".hidden", "a\0b"])
@pytest.mark.parametrize("which", ["config", "env_config"])
def test_paths_are_not_names(root: Path, name: str, which: str) -> None:
    (root.parent / "secret.yaml").write_text("name: secret\n")
    (message,) = config_errors(root, **{which: name})
    assert "expected a name, not a path" in message


@pytest.mark.parametrize("name", ["qmx", "QMIX"])
def test_unknown_names_list_the_files(root: Path, name: str) -> None:
    assert config_errors(root, config=name, env_config="navigaton") == [
        f"--config: unknown algorithm {name!r}; did you mean 'qmix'? Known: iql, qmix, tuned",
        "--env-config: unknown environment 'navigaton'; did you mean 'navigation'? Known: battle, navigation",
    ]


def test_unreadable_layers_are_reported_together(root: Path) -> None:
    (root / "default.yaml").unlink()
    _append(root, "algs/iql.yaml", "lr: 1\n")
    assert config_errors(root, "lr") == [
        "'lr' (command line): expected key=value after 'with', such as lr=0.001 or env_args.n=3",
        "config/algs/iql.yaml:4: duplicate key 'lr', already on line 3",
        "config/default.yaml: cannot be read: No such file or directory",
    ]


def test_code_in_an_override_is_a_text(root: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('os').mkdir('{canary}')"
    assert load_fake(root, f"checkpoint_path={code}").values["checkpoint_path"] == code
    assert not canary.exists()


def test_the_last_of_two_overrides_wins(root: Path) -> None:
    assert load_fake(root, "seed=2", "seed=3").run.seed == 3


def test_default_yaml_gives_every_option_but_three() -> None:
    values = load_yaml(CONFIG_ROOT / "default.yaml").values
    assert set(RunOptions.model_fields) - set(values) == {"env", "learner", "name"}
    given = {**values, "env": "e", "learner": "l", "name": "n"}
    assert RunOptions.model_validate(given).model_dump() == given


def test_default_yaml_comments_every_option() -> None:
    lines = (CONFIG_ROOT / "default.yaml").read_text().splitlines()
    options = [line for line in lines if line and not line.startswith("#")]
    assert all(" # " in line for line in options)


def test_framework_options_are_described_and_have_no_default() -> None:
    for key, field in RunOptions.model_fields.items():
        assert field.description, key
        assert "\n" not in field.description
        assert field.is_required(), key


def test_every_selector_is_an_option() -> None:
    assert set(PARTS) <= set(RunOptions.model_fields)


def variant_root(tmp_path: Path, variants: str) -> Path:
    """A configuration folder with an algorithm, one that builds on it, a variant, and an environment that names it."""
    root = tmp_path / "config"
    shutil.copytree(CONFIG_ROOT, root)
    (root / "algs" / "mine.yaml").write_text("base: vdn\nname: mine\ngamma: 0.9\n")
    (root / "algs" / "vdn_there.yaml").write_text("base: vdn\ngamma: 0.5\nlr: 0.5\n")
    with (root / "envs" / "navigation.yaml").open("a") as file:
        file.write(f"variants: {variants}\n")
    return root


def test_an_environment_can_change_an_algorithm_and_what_builds_on_it(tmp_path: Path) -> None:
    root = variant_root(tmp_path, "{vdn: vdn_there}")
    vdn, mine, qmix, there = (
        load_config(name, "navigation", root=root) for name in ("vdn", "mine", "qmix", "vdn_there")
    )
    assert (vdn.values["gamma"], vdn.values["lr"]) == (there.values["gamma"], there.values["lr"]) == (0.5, 0.5)
    assert vdn.sources["gamma"].startswith("config/algs/vdn_there.yaml:")
    # What builds on it keeps its own values.
    assert (mine.values["gamma"], mine.values["lr"]) == (0.9, 0.5)
    assert (qmix.values["gamma"], qmix.unused) == (0.99, ())
    assert load_config("vdn", "navigation", ["gamma=0.7"], root).values["gamma"] == 0.7
    assert load_config("vdn", "matrix_game", root=root).values["gamma"] == 0.99


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ("{vdn: vdn_ther}", "unknown algorithm 'vdn_ther'; did you mean 'vdn_there'"),
        ("{vnd: vdn_there}", "unknown algorithm 'vnd'; did you mean 'vdn'"),
        ("vdn_there", "expected a mapping"),
    ],
)
def test_wrong_variants_are_told_with_their_line(tmp_path: Path, variants: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"config/envs/navigation.yaml:\d+: variants: {told}"):
        load_config("vdn", "navigation", root=variant_root(tmp_path, variants))
