"""Measurements of trained runs, made once each and kept on disk."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import write_json_atomic
from launchers.jobs import IGNORED, result_key
from reports.run_records import RunRecord
from utils.logging import get_logger
from utils.signals import StopSignals

FOLDER = "measurements"
# Raised when a measurement means something else than before: what older programs kept is then not used.
VERSION = 1
# The device stays in the names of measurements: those made before sets overlooked it are found by it.
_IGNORED = frozenset(IGNORED) - {"use_cuda"}
_WAIT_SECONDS = 0.5

Found = dict[str, Any]
Measure = Callable[[str, Path, Sequence[str], int], Found]


@dataclass(frozen=True)
class Point:
    """One measurement of one trained run.

    Attributes:
        run: the finished run.
        kind: what is measured.
        overrides: ``key=value`` texts of the setting.
        count: episodes.
    """

    run: RunRecord
    kind: str
    overrides: tuple[str, ...]
    count: int

    @property
    def key(self) -> str:
        """Equal for two points of equal result; the name of the file that keeps it."""
        trained = [result_key(self.run.config, _IGNORED), self.run.run.get("start_time"), self.run.commit.get("commit")]
        text = json.dumps([VERSION, trained, self.kind, sorted(self.overrides), self.count])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def name(self) -> str:
        """Names the point in messages."""
        return " ".join([f"{self.kind} of {self.run.folder}", *(["with", *self.overrides] if self.overrides else [])])


class Store:
    """The measurements below a results folder.

    Args:
        results: the folder; ``measurements/`` in it is made when the first one is kept.
    """

    def __init__(self, results: Path) -> None:
        self.folder = results / FOLDER

    def read(self, point: Point) -> Found | None:
        """What was measured, or ``None``; a file that cannot be read counts as none."""
        try:
            document = json.loads(self._path(point).read_bytes())
            found: Found = document["found"] | {"commit": document["commit"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def keep(self, point: Point, found: Found, commit: dict[str, Any]) -> None:
        """Writes what was measured, with what it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"run": str(point.run.folder), "kind": point.kind, "overrides": point.overrides, "count": point.count}
        write_json_atomic(self._path(point), about | {"commit": commit, "found": found})

    def _path(self, point: Point) -> Path:
        return self.folder / f"{point.key}.json"


def measure_missing(
    points: Sequence[Point], store: Store, measure: Measure, jobs: int, commit: dict[str, Any]
) -> dict[str, str]:
    """Measures what the store lacks, in processes of this machine.

    Args:
        points: any; equal ones are measured once.
        store: is asked and gets the results, each as soon as it is there.
        measure: a function of a module, ``measure(kind, run folder, overrides, count)``.
        jobs: processes.
        commit: of this program, kept with the results.

    Returns:
        Point's key -> why it could not be measured.

    Raises:
        StopRequested: stopped by a signal; what was measured is kept.
    """
    missing = {point.key: point for point in points if store.read(point) is None}
    if not missing:
        return {}
    get_logger().info("%d measurements to be made, %d at a time", len(missing), jobs)
    faults: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")
    with StopSignals() as signals, ProcessPoolExecutor(min(jobs, len(missing)), context, _begin) as pool:
        waiting: dict[Future[Found], Point] = {}
        for point in missing.values():
            waiting[pool.submit(measure, point.kind, point.run.folder, point.overrides, point.count)] = point
        done = 0
        while waiting and signals.requested is None:
            for future in wait(waiting, _WAIT_SECONDS, FIRST_COMPLETED).done:
                point = waiting.pop(future)
                fault = _take(future, point, store, commit)
                if fault is not None:
                    faults[point.key] = fault
                done += 1
                if done % 25 == 0 or not waiting:
                    get_logger().info("%d of %d measurements made", done, len(missing))
        pool.shutdown(wait=True, cancel_futures=True)
        signals.check()
    return faults


def _take(future: Future[Found], point: Point, store: Store, commit: dict[str, Any]) -> str | None:
    """Keeps a result; says what was wrong where there is none."""
    try:
        store.keep(point, future.result(), commit)
    except UserError as error:
        return str(error)
    except BrokenProcessPool:
        return "its process was killed (out of memory?)"
    except OSError as error:
        return f"cannot be kept in {store.folder}: {error.strerror or error}"
    except Exception as error:
        # A fault of one setting must not hide the others' results.
        return f"{type(error).__name__}: {error}"
    return None


def _begin() -> None:
    """In each process: one thread, and signals are the parent's to answer."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
