"""Shows that a killed and resumed run ends as the uninterrupted one, bit for bit.

    python benchmarks/exact_resume.py                       # the default job at full length, killed 6 times
    python benchmarks/exact_resume.py --kills 12 -- --config=qmix with t_max=100000 checkpoint_minutes=0.05

Runs the program to its end, then again with kills at random moments (SIGTERM, SIGINT and SIGKILL in turn), each
followed by ``resume``; compares checkpoint, metrics, lists of info.json, and final evaluation; prints JSON, and exits
with 1 when something differs. Runs are forks of this process: they share its imports and compiled code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from components.checkpoint import MANIFEST, verify_checkpoint  # noqa: E402
from components.checkpoint_folders import MODELS, RESUME, checkpoints_in  # noqa: E402
from main import main  # noqa: E402
from reports.run_records import COMPLETED, read_run  # noqa: E402
from utils.run_record import git_commit  # noqa: E402

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
# Measurements of time, which no resume can repeat.
TIMES = ("cpu_seconds", "wall_seconds")
# The default job with a full state every 6 seconds and the replay buffer in its last checkpoint.
DEFAULT = ["with", "checkpoint_minutes=0.1", "save_buffer=true"]


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
    """What must be equal: hashes of the last checkpoint, metrics, PyMARL's lists, final evaluation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    info = json.loads((folder / "info.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    last = checkpoints_in(folder / MODELS)[0]
    verify_checkpoint(last)
    return {
        "checkpoint": json.loads((last / MANIFEST).read_text())["files"],
        "metrics": [line for line in lines if line["key"] not in TIMES],
        "info": {key: values for key, values in info.items() if key.removesuffix("_T") not in TIMES},
        "test": summary["test"],
        "updates": summary["updates"],
        "env_steps": summary["env_steps"],
        "status": read_run(folder).status,
        "full_states": [path.name for path in checkpoints_in(folder / RESUME)],
    }


def run_folder(results: Path) -> Path | None:
    """The one run below ``results``, once its record is open."""
    return next((path.parent for path in results.glob("sacred/*/*/*/config_sources.json")), None)


def killed(folder: Path, arguments: list[str], draw: random.Random, kills: int, seconds: float) -> list[list[Any]]:
    """Kills a run ``kills`` times, each within ``seconds`` of its start, and resumes it to its end.

    Returns:
        For each start: the signal, when it came, the exit code, and the run's status then ("" without a record).
    """
    results, log = folder / "killed", folder / "killed.log"
    done: list[list[Any]] = []
    while True:
        run = run_folder(results)
        argv = [*arguments, f"local_results_path={results}"] if run is None else ["resume", str(run)]
        if len(done) >= kills:
            done.append(["end", None, forked(partial(main, argv), log), COMPLETED])
            return done
        number, moment = SIGNALS[len(done) % len(SIGNALS)], draw.uniform(0.0, seconds)
        code = forked(partial(main, argv), log, (number, moment))
        run = run_folder(results)
        status = "" if run is None else read_run(run).status
        done.append([signal.Signals(number).name, round(moment, 3), code, status])
        if status == COMPLETED:  # before the signal came
            return done


def compare(folder: Path, seed: int, kills: int, arguments: list[str]) -> dict[str, Any]:
    """One uninterrupted run, and killed ones with the same arguments until ``kills`` kills have been survived."""
    draw = random.Random(seed)  # noqa: S311
    began = time.monotonic()
    code = forked(partial(main, [*arguments, f"local_results_path={folder / 'whole'}"]), folder / "whole.log")
    seconds = time.monotonic() - began
    if code != 0:
        raise SystemExit(f"the uninterrupted run failed:\n{(folder / 'whole.log').read_text()[-2000:]}")
    done: list[list[Any]] = []
    resumed: list[Path] = []
    while sum(status != COMPLETED for _, _, _, status in done) < kills:
        part = folder / str(len(resumed))
        part.mkdir()
        # Moments early enough that a run which loses its last seconds to SIGKILL still gets on.
        done += killed(part, arguments, draw, kills, seconds / 2)
        resumed.append(run_folder(part / "killed") or part)
    return {
        "seconds": round(seconds, 1),
        "starts": done,
        "whole": left_by(run_folder(folder / "whole") or folder),
        "resumed": [left_by(run) for run in resumed],
    }


def warm(folder: Path, arguments: list[str]) -> None:
    """Compiles everything in this process, before it forks."""
    with redirect_stdout(sys.stderr):
        main([*arguments, f"local_results_path={folder / 'warm'}"])


def command_line() -> None:
    """Compares, prints, and exits with 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="kills to survive (default 6)")
    parser.add_argument("--seed", type=int, default=1, help="draws the moments")
    parser.add_argument("arguments", nargs="*", default=DEFAULT, help="of src/main.py, ending in 'with ...'; after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = compare(Path(name), given.seed, given.kills, given.arguments)
    equal = [run == found["whole"] for run in found["resumed"]]
    print(
        json.dumps(
            {
                "command": f"python benchmarks/exact_resume.py --kills {given.kills} --seed {given.seed}",
                "arguments": given.arguments,
                "equal": equal,
                "starts": found["starts"],
                "uninterrupted_seconds": found["seconds"],
                "compared": {
                    "checkpoint": found["whole"]["checkpoint"],
                    "metric_lines": len(found["whole"]["metrics"]),
                    "updates": found["whole"]["updates"],
                    "env_steps": found["whole"]["env_steps"],
                    "test": found["whole"]["test"],
                },
                "commit": git_commit(ROOT),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            },
            indent=2,
        )
    )
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    command_line()
