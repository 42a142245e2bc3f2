from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import fake_parts
from support.fake_parts import write_config_folder

import main as main_module
from components.command_line import Command, format_config, help_text, parse
from components.config import Config, RunOptions, load_config
from components.errors import UserError

MAIN = Path(main_module.__file__)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([], Command("run", "lpmarl", "constrained_navigation", [])),
        (["--config=qmix"], Command("run", "qmix", "constrained_navigation", [])),
        (["--config", "qmix", "--env-config", "sc2"], Command("run", "qmix", "sc2", [])),
        (["--env-config=sc2", "with", "a=1", "b.c=x y"], Command("run", "lpmarl", "sc2", ["a=1", "b.c=x y"])),
        (["with"], Command("run", "lpmarl", "constrained_navigation", [])),
        (["print_config"], Command("print_config", "lpmarl", "constrained_navigation", [])),
        (
            ["--config=qmix", "print_config", "--env-config=sc2", "with", "a=1"],
            Command("print_config", "qmix", "sc2", ["a=1"]),
        ),
        (["with", "a=--config"], Command("run", "lpmarl", "constrained_navigation", ["a=--config"])),
        (["-h"], Command("help", "lpmarl", "constrained_navigation", [])),
        (["--nonsense", "--help"], Command("help", "lpmarl", "constrained_navigation", [])),
    ],
)
def test_parse(argv: list[str], command: Command) -> None:
    assert parse(argv) == command


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--confg=qmix"], "unknown argument '--confg=qmix'; did you mean '--config'"),
        (["--env_config=sc2"], "did you mean '--env-config'"),
        (["print-config"], "did you mean 'print_config'"),
        (["qmix"], "unknown argument 'qmix'"),
        (["lr=1"], "'lr=1': write key=value after the word 'with'"),
        (["--config"], "--config needs a value: --config=lpmarl"),
        (["--config="], "--config needs a value"),
        (["--config", "with", "a=1"], "--config needs a value"),
        (["--config", "--env-config=sc2"], "--config needs a value"),
        (["--config=a", "--config=b"], "--config is given twice"),
        (["with", "a=1", "--config=qmix"], "'--config=qmix' stands after 'with'"),
        (["with", "a=1", "print_config"], "'print_config' stands after 'with'"),
        (["with", "a=1", "with", "b=1"], "'with' stands after 'with'"),
    ],
)
def test_parse_refuses(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_lists_names_and_options(tmp_path: Path) -> None:
    text = help_text({"resume": "go on"}, write_config_folder(tmp_path))
    assert "iql, qmix, tuned" in text
    assert "battle, navigation" in text
    for key, field in RunOptions.model_fields.items():
        (row,) = [line for line in text.splitlines() if line.split()[:1] == [key]]
        assert field.description is not None
        assert field.description in row


def test_help_survives_a_broken_config_folder(tmp_path: Path) -> None:
    assert "usage:" in help_text(root=tmp_path / "absent")
    root = write_config_folder(tmp_path)
    (root / "default.yaml").write_text("a: [")
    assert "usage:" in help_text(root=root)


def _fake_config(folder: Path, *overrides: str) -> Config:
    return load_config("qmix", "navigation", overrides, write_config_folder(folder), fake_parts.PARTS)


def test_print_config_is_a_table(tmp_path: Path) -> None:
    config = _fake_config(tmp_path, "lr=2", "checkpoint_path=\x1b[2J")
    lines = format_config(config).splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert rows["lr"].split(maxsplit=1)[1].startswith("2.0")
    assert "command line" in rows["lr"]
    assert "step size of the optimizer" in rows["lr"]
    assert "config/envs/navigation.yaml:4" in rows["env_args.n_agents"]
    assert "default of env 'navigation'" in rows["env_args.size"]
    assert len(rows) == len(config.sources) + 1
    column = lines[0].index("source")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert "\x1b" not in "".join(lines)


def test_print_config_names_unused_keys(tmp_path: Path) -> None:
    text = format_config(_fake_config(tmp_path, "mixer=null"))
    assert text.splitlines()[-1].startswith("mixing_embed_dim (config/algs/qmix.yaml:5) is not used")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes ``main`` read a small configuration folder with fake parts."""
    root = write_config_folder(tmp_path)

    def load(config: str, env_config: str, overrides: list[str]) -> Config:
        return load_config(config, env_config, overrides, root, fake_parts.PARTS)

    monkeypatch.setattr(main_module, "load_config", load)
    return root


def _set_experiment(monkeypatch: pytest.MonkeyPatch, outcome: Path | BaseException) -> list[Config]:
    seen: list[Config] = []

    def run_experiment(config: Config) -> Path:
        seen.append(config)
        print("chatter")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module = ModuleType("experiment")
    module.run_experiment = run_experiment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "experiment", module)
    return seen


ARGUMENTS = ["--config=iql", "--env-config=navigation"]


@pytest.mark.usefixtures("loaded")
class TestMain:
    def test_the_last_line_is_the_folder(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen = _set_experiment(monkeypatch, Path("results/run-1"))
        assert main_module.main([*ARGUMENTS, "with", "seed=7"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(Path("results/run-1"))
        assert [config.run.seed for config in seen] == [7]

    def test_a_mistake_starts_nothing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen = _set_experiment(monkeypatch, Path("x"))
        assert main_module.main([*ARGUMENTS, "with", "lr=abc", "sed=1"]) == 2
        captured = capsys.readouterr()
        assert captured.err.splitlines() == [
            "error: lr = 'abc' (command line): expected a number > 0, not a text",
            "error: sed (command line): unknown key; did you mean 'seed'?",
        ]
        assert captured.out == ""
        assert seen == []

    @pytest.mark.parametrize(
        ("outcome", "code", "message"),
        [(UserError("disk full"), 2, "error: disk full\n"), (KeyboardInterrupt(), 130, "interrupted\n")],
    )
    def test_exit_codes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        outcome: BaseException,
        code: int,
        message: str,
    ) -> None:
        _set_experiment(monkeypatch, outcome)
        assert main_module.main(ARGUMENTS) == code
        assert capsys.readouterr().err == message

    def test_a_programming_error_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _set_experiment(monkeypatch, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            main_module.main(ARGUMENTS)

    def test_print_config_runs_nothing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen = _set_experiment(monkeypatch, Path("x"))
        assert main_module.main([*ARGUMENTS, "print_config"]) == 0
        assert "config/algs/iql.yaml:3" in capsys.readouterr().out
        assert seen == []

    def test_unused_keys_are_noted(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        _set_experiment(monkeypatch, Path("x"))
        assert main_module.main(["--config=qmix", "--env-config=navigation", "with", "mixer=null"]) == 0
        assert capsys.readouterr().err.startswith("note: mixing_embed_dim (config/algs/qmix.yaml:5) is not used")


BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'sacred', 'ortools', 'numba']))\n"


@pytest.mark.parametrize(
    ("arguments", "code", "stream"),
    [(["--help"], 0, "stdout"), (["--config=../../etc/passwd"], 2, "stderr"), (["--confg=x"], 2, "stderr")],
)
def test_the_real_command_without_any_heavy_package(arguments: list[str], code: int, stream: str) -> None:
    script = f"{BLOCKED}sys.path.insert(0, {str(MAIN.parent)!r})\nimport main\nsys.exit(main.main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert getattr(done, stream).startswith("usage: " if code == 0 else "error: ")
    assert "Traceback" not in done.stderr
