"""The Docker files as far as they can be checked without Docker: structure, shell steps, and the commands of run.sh."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.local_archives import BINARY, tools_folder, write_script

from commands import COMMANDS
from components.command_line import parse
from components.config import load_config

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
NAMES = ("Dockerfile", "Dockerfile.cuda")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def instructions(name: str) -> list[tuple[str, str]]:
    """Each instruction and its text; lines that go on are joined, comments are left out."""
    lines = [line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "\\\n ", "\n".join(lines)).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def texts(name: str, kind: str) -> list[str]:
    return [text for found, text in instructions(name) if found == kind]


def step(name: str, part: str) -> str:
    """The one RUN step that holds this text."""
    (found,) = [text for text in texts(name, "RUN") if part in text]
    return found


def run(code: str, folder: Path, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What docker build does with a RUN step."""
    return subprocess.run(
        [shutil.which("sh") or "sh", "-c", code],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_known_instructions_in_a_fitting_order(name: str) -> None:
    kinds = [kind for kind, _ in instructions(name)]
    assert set(kinds) == {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "ENTRYPOINT"}
    assert kinds[0] == "FROM"
    # A changed source file must not install the packages again.
    texts_in_order = [text for _, text in instructions(name)]
    packages = texts_in_order.index("pip install --requirement requirements.txt")
    assert texts_in_order.index("requirements.txt ./") < packages < texts_in_order.index("src src")


@pytest.mark.parametrize("name", NAMES)
def test_the_base_image_is_pinned(name: str) -> None:
    (image,) = texts(name, "FROM")
    tag = image.partition(":")[2]
    assert re.fullmatch(r"3\.(10|11|12|13)\.\d+-slim-\w+", tag), "a Python that requirements.txt is made for"
    assert "latest" not in (DOCKER / name).read_text()


def _ignored(path: Path) -> bool:
    """The rules of .dockerignore: the last that fits decides."""
    name = path.relative_to(ROOT).as_posix()
    parts = [name, *(parent.as_posix() for parent in Path(name).parents if parent != Path("."))]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        loose = pattern.removeprefix("**/")
        if any(fnmatch.fnmatchcase(part, pattern) for part in parts) or (
            loose != pattern and any(fnmatch.fnmatchcase(piece, loose) for piece in Path(name).parts)
        ):
            ignored = not rule.startswith("!")
    return ignored


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    sources = [source for text in texts(name, "COPY") for source in text.split()[:-1]]
    assert {"requirements.txt", "install_sc2.sh", "config", "src"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not _ignored(ROOT / source), source


def test_what_must_not_come_into_an_image_is_ignored() -> None:
    for name in (".git", ".venv", "results", "docker/run.sh", "src/__pycache__", "tests", "README.md"):
        assert _ignored(ROOT / name), name
    assert not _ignored(ROOT / "src" / "main.py")


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_as_a_normal_user(name: str) -> None:
    (user,) = texts(name, "USER")
    assert user not in ("root", "0")
    assert f'useradd --no-log-init --create-home --uid "$USER_ID" {user}' in step(name, "useradd")
    kinds = [kind for kind, _ in instructions(name)]
    assert not {"RUN", "COPY"} & set(kinds[kinds.index("USER") :])


@pytest.mark.parametrize("name", NAMES)
def test_every_build_argument_is_used(name: str) -> None:
    arguments = dict(text.split("=") for text in texts(name, "ARG"))
    own = {"TORCH_INDEX_URL": ""} if name == "Dockerfile" else {}
    assert arguments == own | {"INSTALL_SMAC": "1", "INSTALL_SC2": "0", "ACCEPT_EULA": "0", "USER_ID": "1000"}
    used = " ".join(texts(name, "RUN"))
    assert all(f"${argument}" in used for argument in arguments)


@pytest.mark.parametrize("name", NAMES)
def test_the_shell_steps_are_valid(name: str) -> None:
    for code in texts(name, "RUN"):
        done = subprocess.run(["bash", "-n", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), code
        # Without pipefail, only the end of a pipe would count.
        assert not re.search(r"(?<!\|)\|(?!\|)", code.replace("[^ ;#]", "")), code


@pytest.mark.parametrize("name", NAMES)
def test_the_program_is_the_command(name: str) -> None:
    assert texts(name, "ENTRYPOINT") == ['["python", "src/main.py"]']
    assert texts(name, "WORKDIR") == ["/lpmarl"]
    assert (ROOT / "src" / "main.py").exists()


def test_the_two_images_differ_only_in_pytorch_and_the_driver() -> None:
    ours, other = ({f"{kind} {text}" for kind, text in instructions(name)} for name in NAMES)
    assert sorted(line.split()[0] for line in ours ^ other) == ["ARG", "ENV", "ENV", "RUN", "RUN"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in next(line for line in other - ours if line.startswith("ENV"))


@pytest.mark.parametrize(
    ("name", "given", "index"),
    [
        ("Dockerfile", {}, ""),
        ("Dockerfile", {"TORCH_INDEX_URL": "https://index.test/cpu"}, "--index-url https://index.test/cpu "),
        ("Dockerfile.cuda", {}, ""),
    ],
)
def test_pytorch_is_that_of_the_requirements(name: str, given: dict[str, str], index: str, tmp_path: Path) -> None:
    path = str(tools_folder(tmp_path / "bin", pip='echo "$@"'))
    done = run(step(name, "torch=="), ROOT, path, **given)
    (pin,) = [line for line in (ROOT / "requirements.txt").read_text().split() if line.startswith("torch==")]
    assert (done.returncode, done.stdout) == (0, f"install {index}{pin}\n"), done.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("install", "accept", "code", "calls"),
    [
        ("0", "0", 0, ""),
        ("0", "1", 0, ""),
        ("1", "0", 2, ""),
        ("1", "1", 0, "--accept-eula --no-python\n"),
    ],
)
def test_the_game_is_installed_only_on_demand(
    name: str, install: str, accept: str, code: int, calls: str, tmp_path: Path
) -> None:
    write_script(tmp_path / "install_sc2.sh", f'mkdir game game.install; echo "$@"; echo "$SC2PATH" >{tmp_path}/where')
    # Here /game must not be that of this machine.
    moved = step(name, "INSTALL_SC2").replace(" /game", f" {tmp_path}/game")
    environment = {"INSTALL_SC2": install, "ACCEPT_EULA": accept, "SC2PATH": "/game"}
    done = run(moved, tmp_path, os.environ["PATH"], **environment)
    assert (done.returncode, done.stdout) == (code, calls), done.stderr
    assert ("AI_AND_MACHINE_LEARNING_LICENSE" in done.stderr) == (code == 2)
    assert (tmp_path / "game").exists() == (calls != "")
    assert not (tmp_path / "game.install").exists()
    assert "SC2PATH=/game" in texts(name, "ENV")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("install", "calls"), [("1", "python3 --only-python\n"), ("0", "")])
def test_smac_can_be_left_out(name: str, install: str, calls: str, tmp_path: Path) -> None:
    write_script(tmp_path / "install_sc2.sh", 'echo "$LPMARL_PYTHON" "$@"')
    done = run(step(name, "INSTALL_SMAC"), tmp_path, os.environ["PATH"], INSTALL_SMAC=install)
    assert (done.returncode, done.stdout) == (0, calls)


def test_compose_names_what_exists() -> None:
    for service in COMPOSE["services"].values():
        assert service["build"]["context"] == ".."
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert set(service["build"]["args"]) <= {text.split("=")[0] for text in texts("Dockerfile", "ARG")}
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            assert volume["source"].startswith(("..", "${SC2PATH:-"))
            assert volume["target"] == "/lpmarl/results" or volume["read_only"]
    assert COMPOSE["services"]["trainer"]["volumes"][-1]["target"] == "/lpmarl/results"


def test_composes_trainers_are_commands_of_the_program() -> None:
    services = COMPOSE["services"]
    command = parse(services["trainer"]["command"], COMMANDS)
    config = load_config(command.config, command.env_config, command.overrides)
    assert config.run.use_tensorboard
    command = parse(services["trainer-sc2"]["command"], COMMANDS)
    assert (command.config, command.env_config) == ("lpmarl", "sc2")
    # It starts only when it is asked for.
    assert services["trainer-sc2"]["profiles"] == ["sc2"]


def test_only_this_machine_reaches_tensorboard() -> None:
    ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert ports == {"tensorboard": ["127.0.0.1:6006:6006"]}
    (results,) = COMPOSE["services"]["tensorboard"]["volumes"]
    assert results["read_only"]


# Writes down every call; IMAGE says whether there is one, and CODE how a build and a run end.
_FAKE_DOCKER = """printf '%q ' "$@" >>"$HOME/calls"; echo >>"$HOME/calls"
case "$1" in
image) [ "$IMAGE" = there ] ;;
build) echo building; exit "$BUILD" ;;
run) echo trained; exit "$CODE" ;;
esac"""


class Host:
    """A checkout in a home folder, with a docker that does nothing."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.root = folder / "my lpmarl"
        for name in (
            "docker/run.sh",
            "docker/Dockerfile",
            "docker/Dockerfile.cuda",
            "requirements.txt",
            "install_sc2.sh",
        ):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.path = str(tools_folder(folder / "bin", docker=_FAKE_DOCKER))

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        base = {"HOME": str(self.home), "PATH": self.path, "IMAGE": "missing", "BUILD": "0", "CODE": "0"}
        return subprocess.run(
            ["bash", str(self.root / "docker" / "run.sh"), *arguments],
            env={**base, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self, verb: str) -> list[list[str]]:
        file = self.home / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [words for words in map(shlex.split, lines) if words[0] == verb]

    def game(self, folder: str) -> Path:
        binary = self.home / folder / Path(BINARY).relative_to("StarCraftII")
        binary.parent.mkdir(parents=True)
        binary.touch()
        return self.home / folder


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_run_builds_what_is_missing_and_passes_arguments(host: Host) -> None:
    done = host.run("--config=qmix", "with", "name=a b", "--help")
    assert done.returncode == 0, done.stderr
    # What docker build prints does not mix with the program's output, whose last line is the run's folder.
    assert done.stdout == "trained\n"
    (build,), (command,) = host.calls("build"), host.calls("run")
    uid = os.getuid() or 1000
    image = build[build.index("--tag") + 1]
    assert re.fullmatch(r"lpmarl:cpu-[0-9a-f]{12}", image)
    assert build[build.index("--file") + 1] == f"{host.root}/docker/Dockerfile"
    assert build[build.index("--build-arg") + 1] == f"USER_ID={uid}"
    assert build[-1] == str(host.root)
    assert command[command.index(image) + 1 :] == ["--config=qmix", "with", "name=a b", "--help"]
    assert "--gpus" not in command
    assert "--tty" not in command
    assert [word for word in command if word.startswith("type=")] == [
        f"type=bind,source={host.root},target=/lpmarl,readonly",
        f"type=bind,source={host.root}/results,target=/lpmarl/results",
        f"type=volume,source=lpmarl-cache-{uid},target=/home/lpmarl/.cache",
    ]
    assert {"--rm", "--init", "--cap-drop", "--security-opt"} <= set(command)
    assert (host.root / "results").is_dir()


def test_run_does_not_build_what_is_there(host: Host) -> None:
    assert host.run(IMAGE="there").returncode == 0
    assert host.calls("build") == []
    assert host.run("--build", IMAGE="there").returncode == 0
    assert len(host.calls("build")) == 1
    assert host.calls("run")[0][-1] == host.calls("build")[0][host.calls("build")[0].index("--tag") + 1]


def test_other_requirements_are_another_image(host: Host) -> None:
    assert host.run().returncode == 0
    with (host.root / "requirements.txt").open("a") as file:
        file.write("more\n")
    assert host.run().returncode == 0
    first, second = (call[-1] for call in host.calls("run"))
    assert first != second


def test_cuda(host: Host) -> None:
    assert host.run("--cuda", "with", "seed=1").returncode == 0
    (build,), (command,) = host.calls("build"), host.calls("run")
    assert build[build.index("--file") + 1] == f"{host.root}/docker/Dockerfile.cuda"
    assert command[command.index("--gpus") + 1] == "all"
    assert command[-3].startswith("lpmarl:cuda-")
    assert command[-2:] == ["with", "seed=1"]


def test_an_image_of_ones_own_is_not_built(host: Host) -> None:
    assert host.run("with", LPMARL_IMAGE="mine:1").returncode == 0
    assert host.calls("build") == []
    assert host.calls("run")[0][-2:] == ["mine:1", "with"]


@pytest.mark.parametrize(("folder", "variables"), [("StarCraftII", {}), ("sc2", {"SC2PATH": "{home}/sc2"})])
def test_the_game_is_mounted_where_there_is_one(host: Host, folder: str, variables: dict[str, str]) -> None:
    game = host.game(folder)
    done = host.run(**{name: value.format(home=host.home) for name, value in variables.items()})
    assert done.returncode == 0, done.stderr
    assert f"type=bind,source={game},target=/game,readonly" in host.calls("run")[0]


def test_a_named_folder_without_a_game_is_refused(host: Host) -> None:
    done = host.run(SC2PATH=str(host.home / "absent"), IMAGE="there")
    assert done.returncode == 2
    assert "absent holds no game (Versions/Base*/SC2_x64); install_sc2.sh installs it" in done.stderr
    assert host.calls("run") == []


def test_a_comma_in_a_folders_name_is_refused(host: Host) -> None:
    done = host.run(SC2PATH=str(host.game("a,b")), IMAGE="there")
    assert done.returncode == 2
    assert "docker cannot mount a folder with a comma in its name" in done.stderr
    assert host.calls("run") == []


def test_a_dry_run_prints_the_commands_and_does_nothing(host: Host) -> None:
    done = host.run("--dry-run", "--cuda", "with", "name=a b")
    assert done.returncode == 0, done.stderr
    build, command = (shlex.split(line) for line in done.stdout.splitlines())
    assert build[:2] == ["docker", "build"]
    assert command[:2] == ["docker", "run"]
    assert command[-2:] == ["with", "name=a b"]
    assert host.calls("build") == host.calls("run") == []
    assert not (host.root / "results").exists()
    # The real call is the printed one.
    assert host.run("--cuda", "with", "name=a b").returncode == 0
    assert host.calls("run") == [command[1:]]


def test_a_dry_run_needs_no_docker(host: Host) -> None:
    (host.home / "bin" / "docker").unlink()
    done = host.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    done = host.run()
    assert done.returncode == 1
    assert "error: docker is not installed" in done.stderr


def test_exit_codes(host: Host) -> None:
    assert host.run(CODE="143").returncode == 143
    done = host.run(BUILD="3")
    assert done.returncode == 1
    assert "error: the image could not be built" in done.stderr
    assert len(host.calls("run")) == 1
    write_script(host.home / "bin" / "docker", "exit 1")
    done = host.run()
    assert done.returncode == 1
    assert "docker's daemon does not answer" in done.stderr


def test_help(host: Host) -> None:
    done = host.run("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--cuda", "--build", "--dry-run", "SC2PATH", "LPMARL_IMAGE"))
    assert host.run("--", "--help", IMAGE="there").stdout == "trained\n"
    assert host.calls("run")[0][-1] == "--help"
