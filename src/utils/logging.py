"""Metrics and messages of a run: PyMARL's ``Logger`` over append-only sinks."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from components.errors import UserError
from components.files import sync_file

COLUMNS = 4

Number = int | float

if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler  # Python 3.10 cannot subscript it


class _CurrentStderr(_Handler):
    """Writes to whatever ``sys.stderr`` is at that moment: Sacred replaces it to record the output."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """The base class assigns it once; there is nothing to keep."""


def get_logger(name: str = "lpmarl", level: int | str = logging.INFO) -> logging.Logger:
    """The console logger: time, level and message on standard error.

    Args:
        name: the logger's name; asking twice gives the same one with one handler.
        level: the least important level that is shown.
    """
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _CurrentStderr) for handler in logger.handlers):
        handler = _CurrentStderr()
        handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    return logger


class Logger:
    """Records metrics; every write costs the same however many there are.

    Args:
        console_logger: where messages and :meth:`print_recent` go.
        folder: the run folder; ``metrics.jsonl`` in it is appended to. ``None`` writes no file.
        info: the dictionary that Sacred stores as ``info.json`` (``run.info``): gets the lists ``key`` (values)
            and ``key_T`` (environment steps).
        tensorboard: the folder for TensorBoard events, or ``None`` for none.
        keep: bytes of an earlier ``metrics.jsonl`` that stay, when a run is resumed: they are read into ``stats``
            and ``info``.
        start: environment steps of the run so far; TensorBoard hides what an earlier session wrote beyond.

    Attributes:
        stats: key -> list of (t, value), as PyMARL's learners and runners read it.
        console_logger: see above.

    Raises:
        UserError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        console_logger: logging.Logger,
        folder: Path | None = None,
        info: MutableMapping[str, Any] | None = None,
        tensorboard: Path | None = None,
        keep: int | None = None,
        start: int = 0,
    ) -> None:
        self.console_logger = console_logger
        self.stats: defaultdict[str, list[tuple[int, Number]]] = defaultdict(list)
        self._info = info
        self._file = None if folder is None else MetricsFile(Path(folder) / "metrics.jsonl", console_logger, keep)
        self._writer = None
        if tensorboard is not None:
            purge = start + 1 if start else None
            self._writer = summary_writer_class()(str(tensorboard), flush_secs=10, purge_step=purge)
        if keep and self._file is not None:
            for key, step, value in metric_lines(self._file.path):
                self._remember(key, step, value)

    def log_stat(self, key: str, value: Any, t: Any, to_sacred: bool = True) -> None:
        """Records one value.

        Args:
            key: the metric's name ("test_battle_won_mean").
            value: a number, or a tensor or array of one element; NaN is allowed.
            t: environment steps so far.
            to_sacred: also into the ``info`` dictionary.

        Raises:
            TypeError: ``value`` or ``t`` is not one number.
        """
        number, step = _number(value, key), int(_number(t, key))
        self._remember(key, step, number, to_sacred)
        if self._file is not None:
            self._file.append(key, step, number)
        if self._writer is not None:
            self._writer.add_scalar(key, number, step)

    def sync(self) -> int:
        """Forces the metrics to the disk; returns the size of ``metrics.jsonl`` in bytes (0 without a folder).

        Raises:
            UserError: the disk refused.
        """
        return 0 if self._file is None else self._file.sync()

    def _remember(self, key: str, step: int, number: Number, to_sacred: bool = True) -> None:
        self.stats[key].append((step, number))
        if to_sacred and self._info is not None:
            self._info.setdefault(f"{key}_T", []).append(step)
            self._info.setdefault(key, []).append(number)

    def print_recent(self) -> None:
        """One console message with the latest value of each key: training first, then ``test_``, aligned."""
        if not self.stats:
            return
        latest = {key: values[-1] for key, values in self.stats.items()}
        lines = [f"Recent stats | t_env: {max(t for t, _ in latest.values()):,}"]
        width = max(len(key) for key in latest) + 1
        for test in (False, True):
            keys = sorted(key for key in latest if key.startswith("test_") == test)
            cells = [f"{key + ':':<{width}} {_shown(latest[key][1]):>10}" for key in keys]
            lines += ["   ".join(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
        self.console_logger.info("\n".join(lines))

    def close(self) -> None:
        """Writes what is buffered and closes the sinks; a second call does nothing.

        Raises:
            UserError: the disk refused some metrics to the end.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> Logger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except UserError as lost:
            if error is None:
                raise
            self.console_logger.error("%s", lost)  # the error that ended the run must not be hidden


class MetricsFile:
    """Append-only JSON lines ``{"key", "t", "value"}``, handed to the system line by line: a kill loses none.

    While the disk refuses, lines wait in memory and the run goes on.

    Args:
        path: the file; made with its folder when it is not there.
        console_logger: is told when the disk refuses.
        keep: bytes at the start that stay, the rest is dropped; ``None`` keeps all whole lines.
    """

    def __init__(self, path: Path, console_logger: logging.Logger, keep: int | None = None) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _cut(path, keep)
        self._file = path.open("ab", buffering=0)
        self._console = console_logger
        self._rest = b""
        self._refused: OSError | None = None

    def append(self, key: str, t: int, value: Number) -> None:
        """Writes one line."""
        line = _ENCODER.encode({"key": key, "t": t, "value": value if math.isfinite(value) else None})
        self._rest += line.encode() + b"\n"
        self._flush()

    def sync(self) -> int:
        """Forces everything to the disk and returns the file's size in bytes.

        Raises:
            UserError: the disk refused.
        """
        self._flush()
        try:
            if self._refused is not None:
                raise self._refused
            sync_file(self._file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from error
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Writes the rest.

        Raises:
            UserError: the disk refused.
        """
        self._flush()
        self._file.close()
        if self._refused is not None:
            raise UserError(f"metrics are missing at the end of {self.path}: {self._refused.strerror}")

    def _flush(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._file.write(self._rest) :]
        except OSError as error:
            if self._refused is None:
                self._console.warning("%s cannot be written (%s); kept in memory", self.path, error.strerror)
            self._refused = error
        else:
            self._refused = None


def metric_lines(path: Path) -> Iterator[tuple[str, int, float]]:
    """(key, environment steps, value) of each whole line of a ``metrics.jsonl``; nothing where there is no file."""
    try:
        text = path.read_bytes()
    except OSError:
        return
    for line in text.splitlines():
        entry = _metric_line(line)
        if entry is not None:
            yield entry


def _metric_line(line: bytes) -> tuple[str, int, float] | None:
    try:
        entry = json.loads(line)
        return entry["key"], entry["t"], math.nan if entry["value"] is None else entry["value"]
    except (ValueError, KeyError, TypeError):  # what a power loss left of the last line
        return None


_ENCODER = json.JSONEncoder(check_circular=False)


def _cut(path: Path, keep: int | None) -> None:
    """Drops what follows ``keep`` bytes, or the part of a line that a power loss left."""
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1 if keep is None else keep)


def _number(value: Any, key: str) -> Number:
    if type(value) is float or type(value) is int:
        return value
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError) as error:
        raise TypeError(f"metric {key!r}: a single number is needed, got {type(value).__name__}") from error
    if isinstance(plain, (bool, int)):
        return int(plain)
    if isinstance(plain, float):
        return float(plain)
    raise TypeError(f"metric {key!r}: a number is needed, got {type(value).__name__}")


def _shown(value: Number) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


def summary_writer_class() -> Any:
    """PyTorch's TensorBoard writer.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("use_tensorboard needs TensorBoard, which is not installed: pip install tensorboard") from error
    return SummaryWriter
