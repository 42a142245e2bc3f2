"""Sacred as the recorder of a run: its folders and files, without its data loss."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from components.errors import UserError
from components.files import write_json_atomic, write_text_atomic
from utils.run_lock import RunLock
from utils.run_record import git_commit, redact

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    from sacred import Experiment
    from sacred.observers import FileStorageObserver
    from sacred.run import Run
    from sacred.serializer import flatten

T = TypeVar("T")

PIECE = 1000  # values of a list that are encoded at a time
WAY_SECONDS = 2e-4
INFO_SHARE = 50  # info.json is rewritten whole: at most one part in so many of the time


def start_run(
    config: Mapping[str, Any],
    folder: Path,
    main: Callable[[Run, Path], T],
    root: Path,
    beat_seconds: float = 10.0,
    resume: str | None = None,
) -> T:
    """Runs ``main`` and records it as Sacred does, in ``folder/<1, 2, 3, ...>``, which it locks.

    The status in ``run.json`` ends as COMPLETED, FAILED or INTERRUPTED (KeyboardInterrupt and its subclasses).
    Sacred seeds Python's, numpy's and torch's global generators with ``config["seed"]`` before ``main``.

    Args:
        config: the merged, validated configuration; recorded without its secrets.
        folder: see :func:`utils.run_record.run_folder`.
        main: gets Sacred's run (``run.info`` becomes ``info.json``, ``run.result`` shows in ``run.json`` while it
            goes on) and the run's own folder.
        root: the project's folder, for the commit.
        beat_seconds: time between two writings of the records.
        resume: the id of a run in ``folder`` that goes on in its own folder; ``None`` starts a new one.

    Returns:
        What ``main`` returned.

    Raises:
        UserError: the configuration or the records cannot be written.
        BaseException: whatever ``main`` raised.
    """
    observer = _RunObserver(folder, git_commit(root))
    experiment: Any = Experiment("lpmarl", interactive=True, base_dir=str(root), save_git_info=False)
    experiment.logger = logging.getLogger("lpmarl.sacred")
    experiment.logger.setLevel(logging.WARNING)
    experiment.observers.append(observer)
    results: list[T] = []
    # Sacred's wrapper of ``recorded`` is never freed: it must not hold what the run was made of, its buffer above all.
    pending = [main]

    def recorded(_run: Run) -> None:
        observer.info = _run.info
        try:
            results.append(pending.pop()(_run, Path(observer.dir)))
        finally:
            _run._get_captured_output()  # Sacred forgets the output since the last beat of a failed run

    try:
        experiment.add_config(redact(config))
        experiment.main(recorded)
        prepared = experiment._create_run()
        prepared._id = resume
    except (KeyError, ValueError) as error:
        raise UserError(f"Sacred cannot record this configuration: {error}") from error
    prepared.capture_mode = "sys"  # "fd" can hang
    prepared.beat_interval = beat_seconds
    try:
        prepared()
    except BaseException as error:
        if prepared._heartbeat is not None:  # interrupted twice, Sacred leaves this thread and the process cannot end
            prepared._stop_heartbeat_event.set()
        observer.settle(error)
        raise
    finally:
        observer.release()
    if observer.lost is not None:
        raise UserError(f"the records in {observer.dir} are incomplete: {observer.lost}") from observer.lost
    return results[0]


class _RunObserver(FileStorageObserver):
    """Sacred's file observer with whole files, a true final status and bounded cost.

    Args:
        folder: gets one folder per run.
        commit: see :func:`utils.run_record.git_commit`.
    """

    dir: Any
    run_entry: Any
    cout: str
    cout_write_cursor: int

    def __init__(self, folder: Path, commit: Mapping[str, Any]) -> None:
        super().__init__(folder, copy_sources=False)
        self.commit = dict(commit)
        self.lost: OSError | None = None
        self._info_due = 0.0
        self._lock: RunLock | None = None

    def save_json(self, obj: Any, filename: str) -> None:
        path = Path(self.dir) / filename
        try:
            write_json_atomic(path, obj)
        except TypeError:
            write_json_atomic(path, flatten(obj))

    def save_info(self) -> None:
        """Writes ``info.json`` in pieces, so that the training's own log calls need not wait for all of it."""
        write_text_atomic(Path(self.dir) / "info.json", _giving_way(json_pieces(self.info or {})))

    def save_cout(self) -> None:
        """Appends the new console output; what the disk refuses is not forgotten, as Sacred does, but tried again."""
        with (Path(self.dir) / "cout.txt").open("ab", buffering=0) as file:
            size, text = file.tell(), self.cout[self.cout_write_cursor :].encode("utf-8", "backslashreplace")
            try:
                while text:
                    text = text[file.write(text) :]
            except OSError:
                file.truncate(size)
                raise
        self.cout_write_cursor = len(self.cout)

    def release(self) -> None:
        """Unlocks the run's folder."""
        if self._lock is not None:
            self._lock.release()

    def _make_run_dir(self, _id: str | None) -> None:
        if _id is None:
            super()._make_run_dir(_id)
        else:
            self.dir = str(Path(self.basedir) / _id)
        self._lock = RunLock(Path(self.dir))
        if _id is not None and read_record(Path(self.dir) / "run.json").get("status") == "COMPLETED":
            raise UserError(f"{self.dir} is finished (COMPLETED): another process has just resumed it")

    def save_sources(self, ex_info: dict[str, Any]) -> list[Any]:
        ex_info["repositories"] = [self.commit]
        installed = {f"{part.metadata['Name']}=={part.version}" for part in importlib.metadata.distributions()}
        ex_info["dependencies"] = sorted(installed, key=str.lower)
        return []

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        try:
            run_id = self._started(*args, **kwargs)
        except OSError as error:
            raise UserError(f"cannot record a run in {self.basedir}: {error.strerror or error}") from error
        return run_id

    def _started(self, *args: Any, **kwargs: Any) -> Any:
        """Starts a session of a new or a resumed run; the record keeps the first start and lists all sessions."""
        run_id = kwargs.get("_id")
        before = read_record(Path(self.basedir) / run_id / "run.json") if run_id else {}
        run_id = super().started_event(*args, **kwargs)
        session = {"start_time": self.run_entry["start_time"], "host": self.run_entry["host"].get("hostname")}
        self.run_entry["sessions"] = [*before.get("sessions", []), session | self.commit]
        self.run_entry["start_time"] = before.get("start_time", self.run_entry["start_time"])
        self.save_json(self.run_entry, "run.json")
        if not before:
            self.save_info()
            self.save_json({}, "metrics.json")
        return run_id

    def log_metrics(self, metrics_by_name: dict[str, Any], info: dict[str, Any]) -> None:
        if metrics_by_name:  # the base class reads and rewrites everything, even for nothing new
            self._attempt(lambda: super(_RunObserver, self).log_metrics(metrics_by_name, info))

    def heartbeat_event(self, info: dict[str, Any], captured_out: str, beat_time: datetime, result: Any) -> None:
        self.run_entry.update(heartbeat=beat_time.isoformat(), result=result)
        self.cout = captured_out
        began = time.monotonic()
        with suppress(OSError):  # whatever fails now is written again at the next beat and at the end
            self.save_json(self.run_entry, "run.json")
            self.save_cout()
            if began >= self._info_due:
                self.save_info()
                self._info_due = began + INFO_SHARE * (time.monotonic() - began)

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._write_records()
        if self.lost is None:
            self._attempt(lambda: super(_RunObserver, self).completed_event(stop_time, result))
        else:
            self.failed_event(stop_time, [f"the records are incomplete: {self.lost}\n"])

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._write_records()
        self._attempt(lambda: super(_RunObserver, self).interrupted_event(interrupt_time, status))

    def failed_event(self, fail_time: datetime, fail_trace: list[str]) -> None:
        if self.run_entry is None:  # the run's folder could not even be made
            return
        self._write_records()
        self._attempt(lambda: super(_RunObserver, self).failed_event(fail_time, fail_trace))

    def settle(self, error: BaseException) -> None:
        """Gives a run that Sacred left RUNNING its final status (a second Ctrl-C interrupts Sacred too)."""
        if self.run_entry is None or self.run_entry["status"] != "RUNNING":
            return
        now = datetime.now(timezone.utc).replace(tzinfo=None)  # Sacred's own times are naive UTC
        if isinstance(error, KeyboardInterrupt):
            self.interrupted_event(now, "INTERRUPTED")
        else:
            self.failed_event(now, [f"{type(error).__name__}: {error}\n"])

    def _write_records(self) -> None:
        self._attempt(self.save_cout)
        self._attempt(self.save_info)

    def _attempt(self, write: Callable[[], Any]) -> None:
        """Writes for the last time: a refusal is remembered and ends the run as failed."""
        try:
            write()
        except OSError as error:
            self.lost = error


def _giving_way(pieces: Iterator[str]) -> Iterator[str]:
    """The same; between two of them other threads surely run."""
    for piece in pieces:
        yield piece
        # Writing a piece also lets go of the interpreter, but takes it back before a waiting thread has woken up.
        time.sleep(WAY_SECONDS)


def json_pieces(info: Mapping[str, Any]) -> Iterator[str]:
    """``info`` as JSON text, long lists in pieces: encoding one piece keeps other threads waiting about 1 ms.

    The lists ``key`` and ``key_T`` may grow meanwhile; both are cut to the shorter.
    """
    lengths = {key: len(value) for key, value in list(info.items()) if isinstance(value, list)}
    opening = "{"
    for key, value in list(info.items()):
        yield f"{opening}{json.dumps(key)}: "
        opening = ",\n"
        if key in lengths:
            partner = key.removesuffix("_T") if key.endswith("_T") else f"{key}_T"
            yield from _list_pieces(value, min(lengths[key], lengths.get(partner, lengths[key])))
        else:
            yield _dumps(value)
    yield "{}\n" if opening == "{" else "}\n"


def _list_pieces(values: list[Any], length: int) -> Iterator[str]:
    yield "["
    for start in range(0, length, PIECE):
        yield (", " if start else "") + _dumps(values[start : min(start + PIECE, length)])[1:-1]
    yield "]"


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        return json.dumps(flatten(value))


def read_record(path: Path) -> dict[str, Any]:
    """``run.json`` of an earlier session; empty where it cannot be read."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
