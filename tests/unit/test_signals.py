"""SIGTERM and Ctrl-C: the first asks, the second ends, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from utils.signals import STOP_SIGNALS, Stopped, StopRequested, StopSignals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_a_request_that_check_answers(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopSignals() as stop:
        stop.check()
        assert stop.requested is None
        send(number)
        assert stop.requested == number
        assert "a second signal stops" in capfd.readouterr().err
        for _ in range(2):
            with pytest.raises(StopRequested) as caught:
                stop.check()
            assert caught.value.exit_code == code
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("first", STOP_SIGNALS)
@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_signal_ends_at_once(first: signal.Signals, second: signal.Signals, code: int) -> None:
    with StopSignals() as stop:
        send(first)
        with pytest.raises(Stopped) as caught:
            send(second)
        assert not isinstance(caught.value, StopRequested)
        assert caught.value.exit_code == code
        assert stop.requested == first


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.default_int_handler])
def test_ignored_signals_are_heard_and_handlers_come_back(before: signal.Handlers) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, before)

    def fail() -> None:
        with StopSignals() as stop:
            send(signal.SIGINT)
            assert stop.requested == signal.SIGINT
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == [before] * 2


def test_a_new_run_in_the_same_process_starts_without_a_request() -> None:
    with StopSignals():
        send(signal.SIGTERM)
    with StopSignals() as stop:
        stop.check()
