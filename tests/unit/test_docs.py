"""Follows docs/add_an_environment.md and docs/add_an_algorithm.md in a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Text that ends with a file's name in backquotes and a colon, then a code block.
_FILE_BLOCK = re.compile(r"`([\w/.]+)`:\n\n```(\w+)\n(.*?)```", re.DOTALL)
_COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_LINK = re.compile(r"`((?:src|config|tests|docs|benchmarks)/[\w/.]+\.\w+)(?::\w+)?`")
_PAGES = ("add_an_environment", "add_an_algorithm")
# Files that the pages tell their readers to make.
_OF_THE_READER = {
    "src/envs/rendezvous.py",
    "config/envs/rendezvous.yaml",
    "src/learners/monte_carlo_learner.py",
    "config/algs/monte_carlo.yaml",
}


@pytest.mark.parametrize("page", _PAGES)
def test_following_the_page_gives_a_run(page, tmp_path):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for folder in ("src", "config"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = _FILE_BLOCK.findall(text)
    assert len(blocks) == 3, "the part, its registry line and its configuration"
    for name, _, code in blocks:
        path = tmp_path / name
        assert path.exists() == (path.name == "__init__.py"), name
        with path.open("a") as file:
            file.write(code)
    commands = _COMMANDS.findall(text)[0].replace("./run.sh", "python src/main.py").strip().splitlines()
    assert len(commands) == 2
    outputs = [_run(command, tmp_path) for command in commands]
    folder = tmp_path / outputs[-1].strip().splitlines()[-1]
    assert {"summary.json", "config.json", "metrics.jsonl", "checkpoints"} <= {path.name for path in folder.iterdir()}


def _run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.stem)
def test_files_that_a_page_names_exist(page):
    named = set(_LINK.findall(page.read_text())) - _OF_THE_READER
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
