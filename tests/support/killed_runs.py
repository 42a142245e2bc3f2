"""Runs the program in forked processes, kills it at random moments, resumes it, and tells what it left.

Imported by a process of its own, once per test: its forks share the imports and the compiled code, so that a run costs
its training alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from support.small_runs import fingerprint

from components.checkpoint import load_checkpoint
from main import main
from reports.run_records import COMPLETED, read_run

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
# Measurements of time, which no resume can repeat.
TIMES = ("cpu_seconds",)


def forked(call: Callable[[], int], log: Path, kill: tuple[signal.Signals, float] | None = None) -> int:
    """Exit code of ``call`` in a process of its own, as a shell shows it, killed after so many seconds if wanted."""
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 1
        try:
            code = call()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if kill is not None:
        number, seconds = kill
        time.sleep(seconds)
        os.kill(child, number)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def left_by(folder: Path) -> dict[str, Any]:
    """What must be equal: state of the last checkpoint, metrics, PyMARL's lists, final evaluation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    info = json.loads((folder / "info.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    last = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    state = load_checkpoint(last).state
    return {
        "state": {name: fingerprint(part) for name, part in state.items()},
        "metrics": [line for line in lines if line["key"] not in TIMES],
        "info": {key: values for key, values in info.items() if key.removesuffix("_T") not in TIMES},
        "test": summary["test"],
        "updates": summary["updates"],
        "status": json.loads((folder / "run.json").read_text())["status"],
        "full_states": [path.name for path in (folder / "resume").glob("*")],
    }


def run_folder(results: Path) -> Path | None:
    """The one run below ``results``, once its record is open."""
    return next((path.parent for path in results.glob("sacred/*/*/*/config_sources.json")), None)


def killed(folder: Path, arguments: list[str], draw: random.Random, kills: int, seconds: float) -> list[list[Any]]:
    """Kills a run ``kills`` times, each at a random moment of its expected length, and resumes it to its end."""
    results, log, done = folder / "killed", folder / "killed.log", []
    start = [*arguments, f"local_results_path={results}"]
    while True:
        run = run_folder(results)
        argv = start if run is None else ["resume", str(run)]
        if len(done) >= kills:
            done.append(["end", 0.0, forked(partial(main, argv), log), ""])
            return done
        number, moment = SIGNALS[len(done) % len(SIGNALS)], draw.uniform(0.0, seconds)
        code = forked(partial(main, argv), log, (number, moment))
        run = run_folder(results)
        status = "" if run is None else read_run(run).status
        done.append([signal.Signals(number).name, round(moment, 3), code, status])
        if status == COMPLETED:  # before the signal came
            return done


def compare(folder: Path, seed: int, kills: int, arguments: list[str]) -> dict[str, Any]:
    """One uninterrupted and one killed run with the same arguments."""
    draw = random.Random(seed)  # noqa: S311
    with redirect_stdout(sys.stderr):
        main([*arguments, f"local_results_path={folder / 'warm'}"])
    began = time.monotonic()
    code = forked(partial(main, [*arguments, f"local_results_path={folder / 'whole'}"]), folder / "whole.log")
    seconds = time.monotonic() - began
    done: list[list[Any]] = []
    # A run that the draws let finish early is followed by another.
    for attempt in range(20):
        if sum(entry[2] != 0 for entry in done) >= kills:
            break
        part = folder / str(attempt)
        part.mkdir()
        done += killed(part, arguments, draw, kills, seconds / 2)
    parts = [run_folder(folder / str(attempt) / "killed") for attempt in range(20)]
    return {
        "code": code,
        "seconds": seconds,
        "kills": done,
        "whole": left_by(run_folder(folder / "whole") or Path()),
        "resumed": [left_by(part) for part in parts if part is not None],
    }


def print_comparison(argv: list[str]) -> None:
    """Prints the result of ``compare(folder, seed, kills, arguments)`` as JSON."""
    folder, seed, kills, *arguments = argv
    print(json.dumps(compare(Path(folder), int(seed), int(kills), arguments)))
