"""A program that behaves as a run does towards a launcher, in a fraction of a second, and jobs that call it.

python fake_runs.py with key=value ...        a new run
python fake_runs.py resume FOLDER             goes on from its checkpoint
python fake_runs.py launch RESULTS SLOTS JSON  the launcher itself, with jobs of the given settings
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from utils.run_lock import RunLock

if TYPE_CHECKING:
    from launchers.jobs import Job

PROGRAM = (sys.executable, __file__)
# behavior: works | crashes (always, half-way) | crashes_once | misconfigured | stubborn (ignores SIGTERM)
DEFAULTS = {"name": "fake", "label": "", "env": "game", "env_args": {}, "t_max": 4, "pause": 0.05, "behavior": "works"}


def make_job(results: Path, seed: int, **settings: Any) -> Job:
    """A job whose run is this program."""
    from launchers.jobs import Job

    values = DEFAULTS | {"seed": seed, "local_results_path": str(results)} | settings
    return Job("fake", "game", seed, ("with", *(f"{key}={json.dumps(value)}" for key, value in values.items())), values)


def write_run(results: Path, number: int, status: str, **settings: Any) -> Path:
    """A run's folder as some earlier process left it."""
    folder = results / "sacred" / "game" / "fake" / str(number)
    folder.mkdir(parents=True)
    write(folder / "config.json", DEFAULTS | {"local_results_path": str(results)} | settings)
    write(folder / "run.json", {"status": status, "result": settings.get("steps", 0)})
    (folder / "run.lock").write_text(json.dumps({"pid": 1, "host": os.uname().nodename}))
    if status == "COMPLETED":
        write(folder / "summary.json", {"env_steps": 4, "env_steps_per_second": 20.0})
    return folder


def events(results: Path) -> list[list[str]]:
    """What the runs did: [event, seed, environment steps]."""
    path = results / "events.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def run(argv: list[str]) -> int:
    if argv[0] == "resume":
        folder = Path(argv[1])
        values = json.loads((folder / "config.json").read_text())
    else:
        values = {key: json.loads(value) for key, _, value in (text.partition("=") for text in argv[1:])}
        folder = new_folder(Path(values["local_results_path"]) / "sacred" / "game" / "fake")
    results = Path(values["local_results_path"])

    def tell(event: str, steps: int) -> None:
        with (results / "events.txt").open("a") as file:
            file.write(f"{event} {values['seed']} {steps}\n")

    if values["behavior"] == "misconfigured":
        tell("refused", 0)
        print("error: lr = 'abc' (command line): expected a number", file=sys.stderr)
        return 2
    with RunLock(folder):
        return train(folder, values, argv[0] == "resume", tell)


def new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:
            continue
        return parent / str(number)
    raise RuntimeError("too many runs")


def train(folder: Path, values: dict[str, Any], resumed: bool, tell: Any) -> int:
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: values["behavior"] == "stubborn" or stop.append(number))
    write(folder / "config.json", values)
    saved = folder / "saved.json"
    start = json.loads(saved.read_text()) if saved.exists() else 0
    tell("resume" if resumed else "start", start)
    for steps in range(start, values["t_max"]):
        write(folder / "run.json", {"status": "RUNNING", "result": steps})
        time.sleep(values["pause"])
        write(saved, steps + 1)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"key": "test_success_mean", "t": steps + 1, "value": 0.5}) + "\n")
        if stop:
            write(folder / "run.json", {"status": "INTERRUPTED", "result": steps + 1})
            tell("saved", steps + 1)
            return 143
        crashed = folder / "crashed"
        crashes = values["behavior"] == "crashes" or (values["behavior"] == "crashes_once" and not crashed.exists())
        if crashes and steps + 1 >= values["t_max"] // 2:
            crashed.touch()
            tell("crash", steps + 1)
            print("Traceback: the reason of the crash", file=sys.stderr, flush=True)
            os._exit(1)
    write(folder / "summary.json", {"env_steps": values["t_max"], "env_steps_per_second": 20.0})
    write(folder / "run.json", {"status": "COMPLETED", "result": values["t_max"]})
    tell("end", values["t_max"])
    return 0


def launch(results: Path, slots: int, settings: list[dict[str, Any]]) -> int:
    from commands.experiments import run_missing
    from components.errors import UserError
    from utils.signals import Stopped

    jobs = [make_job(results, seed, **one) for seed, one in enumerate(settings, start=1)]
    try:
        tasks = run_missing(jobs, results, slots, 1, PROGRAM)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as stopped:
        return stopped.exit_code
    print(json.dumps([task.state for task in tasks]))
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        sys.exit(launch(Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
    sys.exit(run(sys.argv[1:]))
