"""What the user gets wrong: one message that names it, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from main import main

QUICK = ["t_max=60", "batch_size_run=2", "final_nepisode=2", "test_nepisode=0", "env_args.episode_limit=5"]


def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> str:
    """Runs the command, checks the manner of failing, and returns the message."""
    results = tmp_path / "results"
    split = arguments.index("with") if "with" in arguments else len(arguments)
    command = [*arguments[:split], "with", *arguments[split + 1 :], f"local_results_path={results}"]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert not results.exists()
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["with", "lrr=1"], ["lrr", "command line", "'lr'"]),
        (["with", "lr=abc"], ["lr = 'abc'", "a number > 0"]),
        (["with", "gamma_low=1.5"], ["gamma_low = 1.5", "<= 1"]),
        (["with", "batch_size_run=2.5"], ["batch_size_run = 2.5", "an integer"]),
        (["--config=lpmal"], ["'lpmal'", "'lpmarl'"]),
        (["--env-config=navigatoin"], ["'navigatoin'", "'navigation'"]),
        (["with", "assignment_solver=glob"], ["assignment_solver", "'glob'", "'glop'"]),
        (["with", "env_args.n_landmarks=7"], ["env_args.n_landmarks = 7", "env_args.n_agents = 5"]),
        (["with", "env_args.capacities=[1,1,1]"], ["env_args.capacities", "cannot hold the 5 agents"]),
        (["--env-config=matrix_game"], ["lpmarl_mac", "tasks"]),
        (["--config=qmix", "with", "mixer=qmx"], ["mixer = 'qmx'", "'qmix'"]),
        (["with", "mac=basic_mac", "agent=gru"], ["mac = 'basic_mac'", "learner = 'lpmarl_learner'"]),
        (["--config=qmix", "with", "critic=lpmarl"], ["critic", "learner = 'q_learner'"]),
        (["with", "critic=null"], ["learner = 'lpmarl_learner'", "critic"]),
        (["with", "agent=mlp"], ["mac = 'lpmarl_mac'", "agent = 'mlp'"]),
        (["with", "entropy_weight=0"], ["entropy_weight = 0", "policy_gradient"]),
        (["with", "buffer_size=8"], ["buffer_size = 8", "32 episodes"]),
        (["--config=mappo", "with", "hidden_dim=3000000000000"], ["agent = 'mlp'", "memory", "hidden_dim = 3000000"]),
        (["with", "checkpoint_path=nowhere"], ["nowhere", "no such folder"]),
        (["with", "label=../up"], ["label", "letters"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    message = fails(capsys, tmp_path, *arguments)
    for part in parts:
        assert part in message


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LPMARL run's checkpoint."""
    results = tmp_path_factory.mktemp("results")
    assert main(["with", *QUICK, f"local_results_path={results}"]) == 0
    return next(results.glob("sacred/*/*/1/checkpoints/*"))


def test_a_foreign_folder_is_no_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "pymarl").mkdir()
    (tmp_path / "pymarl" / "agent.th").write_bytes(b"weights")
    message = fails(capsys, tmp_path, "with", f"checkpoint_path={tmp_path / 'pymarl'}")
    assert "pymarl" in message
    assert "agent.th" in message


def test_a_damaged_checkpoint_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoint.iterdir():
        content = bytearray(file.read_bytes())
        if file.name == "tensors.pt":
            content[len(content) // 2] ^= 1
        (damaged / file.name).write_bytes(content)
    assert "tensors.pt" in fails(capsys, tmp_path, "with", *QUICK, f"checkpoint_path={damaged}")


def test_a_checkpoint_of_another_run_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path
) -> None:
    path = f"checkpoint_path={checkpoint}"
    assert "algorithm" in fails(capsys, tmp_path, "--config=qmix", "with", *QUICK, path)
    assert "n_agents" in fails(capsys, tmp_path, "with", *QUICK, path, "env_args.n_agents=6")
    message = fails(capsys, tmp_path, "with", *QUICK, path, "graph_hidden_dim=16")
    assert "controller" in message


def test_a_checkpoint_is_evaluated_at_another_size(tmp_path: Path, checkpoint: Path) -> None:
    others = [f"checkpoint_path={checkpoint}", "evaluate=true", "env_args.n_agents=7", "high_policy=greedy"]
    assert main(["with", *QUICK, *others, f"local_results_path={tmp_path / 'results'}"]) == 0


@pytest.mark.parametrize(
    ("package", "option"), [("ortools", "assignment_solver=glop"), ("tensorboard", "use_tensorboard=true")]
)
def test_a_missing_package_stops_only_what_needs_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, option: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package or "tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "modules.assignment.glop", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install {package}" in fails(capsys, tmp_path, "with", *QUICK, option)
    assert main(["with", *QUICK, f"local_results_path={tmp_path / 'results'}"]) == 0
