"""Sacred as the recorder of a run: its folders and files, without its data loss."""

from __future__ import annotations

import importlib.metadata
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from components.errors import UserError
from components.files import write_json_atomic
from utils.run_record import git_commit, redact

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    from sacred import Experiment
    from sacred.observers import FileStorageObserver
    from sacred.run import Run
    from sacred.serializer import flatten

T = TypeVar("T")

INFO_SHARE = 50  # info.json is rewritten whole: at most one part in so many of the time


def start_run(
    config: Mapping[str, Any],
    folder: Path,
    main: Callable[[Run, Path], T],
    root: Path,
    beat_seconds: float = 10.0,
) -> T:
    """Runs ``main`` and records it as Sacred does, in ``folder/<1, 2, 3, ...>``.

    The status in ``run.json`` ends as COMPLETED, FAILED or INTERRUPTED (KeyboardInterrupt and its subclasses).
    Sacred seeds Python's, numpy's and torch's global generators with ``config["seed"]`` before ``main``.

    Args:
        config: the merged, validated configuration; recorded without its secrets.
        folder: see :func:`utils.run_record.run_folder`.
        main: gets Sacred's run (``run.info`` becomes ``info.json``) and the run's own folder.
        root: the project's folder, for the commit.
        beat_seconds: time between two writings of the records.

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

    def recorded(_run: Run) -> None:
        observer.info = _run.info
        try:
            results.append(main(_run, Path(observer.dir)))
        finally:
            _run._get_captured_output()  # Sacred forgets the output since the last beat of a failed run

    try:
        experiment.add_config(redact(config))
        experiment.main(recorded)
        prepared = experiment._create_run()
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

    def __init__(self, folder: Path, commit: Mapping[str, Any]) -> None:
        super().__init__(folder, copy_sources=False)
        self.commit = dict(commit)
        self.lost: OSError | None = None
        self._info_due = 0.0

    def save_json(self, obj: Any, filename: str) -> None:
        path = Path(self.dir) / filename
        indent = None if filename == "info.json" else 2
        try:
            write_json_atomic(path, obj, indent)
        except TypeError:
            write_json_atomic(path, flatten(obj), indent)

    def save_sources(self, ex_info: dict[str, Any]) -> list[Any]:
        ex_info["repositories"] = [self.commit]
        installed = {f"{part.metadata['Name']}=={part.version}" for part in importlib.metadata.distributions()}
        ex_info["dependencies"] = sorted(installed, key=str.lower)
        return []

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        try:
            run_id = super().started_event(*args, **kwargs)
            self.save_json({}, "info.json")
            self.save_json({}, "metrics.json")
        except OSError as error:
            raise UserError(f"cannot record a run in {self.basedir}: {error.strerror or error}") from error
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
                self.save_json(self.info, "info.json")
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
        self._attempt(lambda: self.save_json(self.info, "info.json"))

    def _attempt(self, write: Callable[[], Any]) -> None:
        """Writes for the last time: a refusal is remembered and ends the run as failed."""
        try:
            write()
        except OSError as error:
            self.lost = error
