import builtins
import io
import json
import logging
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import utils.logging as run_logging
from components.errors import UserError
from utils.logging import Logger, get_logger

SOURCE = Path(run_logging.__file__).parents[1]


@pytest.fixture
def console():
    logger = logging.Logger("test")
    logger.text = io.StringIO()
    logger.addHandler(logging.StreamHandler(logger.text))
    return logger


def read_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_sink_gets_the_value(console, tmp_path):
    info = {}
    with Logger(console, tmp_path, info) as logger:
        logger.log_stat("loss", torch.tensor(0.5, requires_grad=True), torch.tensor(10))
        logger.log_stat("loss", np.float32(0.25), np.int64(20))
        logger.log_stat("episodes", np.array([3]), 20)
        logger.log_stat("hidden", 1.0, 20, to_sacred=False)
        assert logger.stats["loss"] == [(10, 0.5), (20, 0.25)]
    assert info == {"loss": [0.5, 0.25], "loss_T": [10, 20], "episodes": [3], "episodes_T": [20]}
    for values in info.values():
        assert {type(value) for value in values} <= {int, float}
    assert read_lines(tmp_path) == [
        {"key": "loss", "t": 10, "value": 0.5},
        {"key": "loss", "t": 20, "value": 0.25},
        {"key": "episodes", "t": 20, "value": 3},
        {"key": "hidden", "t": 20, "value": 1.0},
    ]


def test_nan_is_null_in_the_file_and_nan_elsewhere(console, tmp_path):
    info = {}
    with Logger(console, tmp_path, info) as logger:
        logger.log_stat("loss", float("nan"), 1)
        logger.log_stat("loss", torch.tensor(float("inf")), 2)
    assert [line["value"] for line in read_lines(tmp_path)] == [None, None]
    assert math.isnan(info["loss"][0])
    assert info["loss"][1] == math.inf


@pytest.mark.parametrize("value", ["0.5", None, [1], torch.zeros(2), np.zeros(0), 1j])
def test_other_values_are_refused_with_the_key(console, value):
    with pytest.raises(TypeError, match="'loss'"):
        Logger(console).log_stat("loss", value, 0)


def test_many_writes_are_cheap(console, tmp_path):
    logger = Logger(console, tmp_path, {})
    began = time.process_time()
    for t in range(200_000):
        logger.log_stat("loss", 0.1, t)
    logger.close()
    assert time.process_time() - began < 2.0 * max(1.0, _slowness())
    assert sum(1 for _ in (tmp_path / "metrics.jsonl").open()) == 200_000


def _slowness():
    """How much slower this machine is now than one that counts to a million in 0.05 s."""
    began = time.process_time()
    for _ in range(1_000_000):
        pass
    return (time.process_time() - began) / 0.05


def test_a_resumed_run_appends_after_whole_lines_only(console, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"key": "a", "t": 1, "value": 1.0}\n{"key": "a", "t"')
    with Logger(console, tmp_path) as logger:
        logger.log_stat("a", 2.0, 2)
    assert [line["t"] for line in read_lines(tmp_path)] == [1, 2]


class FullDisk:
    """A file that takes ten bytes and then refuses until there is room."""

    def __init__(self, file):
        self.file, self.room = file, 10

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        count = self.file.write(data[: self.room])
        self.room -= count
        return count

    def close(self):
        self.file.close()


def test_a_full_disk_does_not_stop_training_but_is_told(console, tmp_path):
    logger = Logger(console, tmp_path)
    disk = logger._file._file = FullDisk(logger._file._file)
    logger.log_stat("a", 1.0, 1)
    logger._file._flush()
    logger._file._flush()
    assert console.text.getvalue().count("No space left") == 1
    disk.room = 10**6
    logger.log_stat("a", 2.0, 2)
    logger.close()
    assert [line["t"] for line in read_lines(tmp_path)] == [1, 2]

    logger = Logger(console, tmp_path / "other")
    logger._file._file = FullDisk(logger._file._file)
    logger.log_stat("a", 1.0, 1)
    with pytest.raises(UserError, match=r"metrics are missing.*No space left"):
        logger.close()


def test_losing_metrics_does_not_hide_the_error_that_ended_the_run(console, tmp_path):
    def run():
        with Logger(console, tmp_path) as logger:
            logger._file._file = FullDisk(logger._file._file)
            logger.log_stat("a", 1.0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert "metrics are missing" in console.text.getvalue()


def test_print_recent_is_aligned_and_groups_tests_last(console):
    logger = Logger(console)
    logger.print_recent()
    assert console.text.getvalue() == ""
    for key in ("test_return", "loss", "return", "entropy", "epsilon", "grad_norm"):
        logger.log_stat(key, 0.5, 100)
        logger.log_stat(key, 1234567.0 if key == "loss" else 0.25, 2000)
    logger.log_stat("episode", 12000, 1500)
    logger.print_recent()
    assert console.text.getvalue().splitlines() == [
        "Recent stats | t_env: 2,000",
        "entropy:         0.2500   episode:         12,000   epsilon:         0.2500   grad_norm:       0.2500",
        "loss:         1.235e+06   return:          0.2500",
        "test_return:     0.2500",
    ]


def test_console_logger_follows_a_replaced_stderr(monkeypatch):
    logger = get_logger("lpmarl-test")
    assert get_logger("lpmarl-test") is logger
    captured = io.StringIO()
    monkeypatch.setattr(sys, "stderr", captured)
    logger.info("hello")
    assert captured.getvalue().count("hello") == 1


def test_tensorboard_is_written_when_asked(console, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Logger(console, tensorboard=tmp_path / "tb") as logger:
        logger.log_stat("loss", 0.5, 10)
        logger.log_stat("loss", 0.25, 20)
    events = accumulator.EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 0.5), (20, 0.25)]


def block_tensorboard(monkeypatch):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if "tensorboard" in name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)


def test_missing_tensorboard_names_the_command(console, tmp_path, monkeypatch):
    block_tensorboard(monkeypatch)
    with pytest.raises(UserError, match="pip install tensorboard"):
        Logger(console, tensorboard=tmp_path)
