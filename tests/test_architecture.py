"""The layers: who may import whom, who reads the command line, and that no name is a special case elsewhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config import PARTS
from components.config_layers import CONFIG_ROOT

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGES = {
    *("components", "controllers", "learners", "runners", "modules", "envs", "utils", "compat"),
    *("commands", "launchers", "reports", "reproduction"),
}
TOP = {"main", "experiment", "parts", "replays", "session"}
FILES = sorted(SRC.rglob("*.py"))
# What each package may import of ours. `envs.base` is the environment contract: shapes and abstract classes that
# import nothing of ours, so every layer may read it, components.episode_buffer among them.
CONTRACT = "envs.base"
ALLOWED = {
    "components": {"components", CONTRACT},
    "modules": {"modules", "components"},
    "envs": {"envs", "components"},
    "controllers": {"controllers", "modules", "components", CONTRACT},
    "learners": {"learners", "controllers", "modules", "components", CONTRACT},
    "runners": {"runners", "controllers.base", "modules", "components", CONTRACT},
    "utils": {"utils", "components"},
    "compat": PACKAGES,
    "reports": {"reports", "utils", "components"},
    "launchers": {"launchers", "reports", "utils", "components"},
    "reproduction": {"reproduction", "launchers", "reports", "utils", "components"},
    "commands": PACKAGES | TOP - {"main"},
}
# Third-party PyMARL files come in through these only.
COMPAT_USERS = {"components/plugins.py", "experiment.py"}
COMMAND_LINE = {"main.py", "components/command_line.py"}


def relative(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from envs import base` names the module in the alias.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in names if (SRC / f"{name.replace('.', '/')}.py").exists()] or [node.module]


def inside(name: str, allowed: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in allowed)


def test_the_packages_are_these() -> None:
    folders = {path.name for path in SRC.iterdir() if path.is_dir() and list(path.glob("**/*.py"))}
    assert folders == PACKAGES == set(ALLOWED)
    assert {path.name for path in SRC.glob("*.py")} == {f"{name}.py" for name in TOP}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_imports_only_the_layers_below_it(path: Path) -> None:
    package = relative(path).partition("/")[0]
    ours = [name for name in imports(path) if inside(name, PACKAGES | TOP)]
    if package in ALLOWED:
        assert [name for name in ours if not inside(name, ALLOWED[package])] == []
    if package != "compat" and relative(path) not in COMPAT_USERS:
        assert [name for name in ours if inside(name, {"compat"})] == []


def test_the_contract_imports_nothing_of_ours() -> None:
    assert [name for name in imports(SRC / "envs/base.py") if inside(name, PACKAGES)] == []


def test_only_the_entry_points_read_the_command_line() -> None:
    readers = {
        relative(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "argv" and isinstance(node.value, ast.Name)
    }
    # A module of its own entry (`python -m envs.checks`) reads it under `if __name__ == "__main__"`.
    assert {name for name in readers if not _is_script(SRC / name)} <= COMMAND_LINE


def _is_script(path: Path) -> bool:
    source = tree(path)
    guards = [node for node in source.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    outside = [node for node in source.body if node not in guards]
    return bool(guards) and all("sys.argv" not in ast.unparse(node) for node in outside)


def names() -> set[str]:
    """Every registered part and every configuration file, by the words that a special case would test for."""
    found = {path.stem for folder in ("algs", "envs") for path in (CONFIG_ROOT / folder).glob("*.yaml")}
    for path in PARTS.values():
        module, _, attribute = path.partition(":")
        if attribute == "REGISTRY" and module != "runners":
            found |= set(getattr(__import__(module, fromlist=[attribute]), attribute))
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_treats_an_environment_or_algorithm_by_its_name(path: Path) -> None:
    special = names()
    tested = [
        f"{relative(path)}:{node.lineno}: {constant.value}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare | ast.MatchValue)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in special
    ]
    assert tested == []
