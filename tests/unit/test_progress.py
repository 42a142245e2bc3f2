import io
import logging
import sys

import pytest

from utils import progress
from utils.progress import Progress


@pytest.fixture
def console():
    logger = logging.Logger("test")
    logger.text = io.StringIO()
    logger.addHandler(logging.StreamHandler(logger.text))
    return logger


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_one_line_a_minute(console, clock):
    with Progress(10_000, console, start=1_000, stream=io.StringIO()) as shown:
        for second in range(1, 131):
            clock[0] += 1
            shown.update(1_000 + 10 * second, success=0.5)
            if second == 3:
                shown.update(1_000 + 10 * second, level="easy")
    lines = console.text.getvalue().splitlines()
    assert lines[0] == (
        "1,600 of 10,000 env steps (16 %), 10 steps/s, 0:01:00 elapsed, 0:14:00 left, success 0.5, level easy"
    )
    assert [line.split()[0] for line in lines] == ["1,600", "2,200", "2,300"]


def test_on_a_terminal_messages_stand_above_the_bar(console, clock):
    terminal = Terminal()
    console.handlers[0].setStream(terminal)
    with Progress(1_000, console, stream=terminal) as shown:
        clock[0] += 2
        shown.update(500, success=0.75)
        console.info("a message")
    console.info("after")
    text = terminal.getvalue()
    assert "success 0.75" in text
    assert "\r\x1b[2Ka message\n" in text
    assert "\x1b[2Kafter" not in text
    assert "\n" not in text[text.index("500/1,000") : text.index("a message")]


def test_no_bar_without_a_standard_error(console, monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", None)
    with Progress(10, console) as shown:
        shown.update(5)
    assert "5 of 10" in console.text.getvalue()
