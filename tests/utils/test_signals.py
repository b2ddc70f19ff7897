"""Signals that a long-running command waits for."""

import os
import signal

import pytest

from utils.signals import GracefulShutdown


def test_a_closing_terminal_is_ignored_under_nohup_and_unless_requested():
    before = signal.getsignal(signal.SIGHUP)
    with GracefulShutdown():
        assert signal.getsignal(signal.SIGHUP) == before
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown(hang_up=True) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None and stop.exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_recorded_and_the_second_ends_the_program(number: signal.Signals) -> None:
    def ends_otherwise(*_: object) -> None:
        raise AssertionError("the signal was not recorded")

    before = signal.signal(number, ends_otherwise)
    try:
        with pytest.raises(KeyboardInterrupt), GracefulShutdown() as stop:
            os.kill(os.getpid(), number)
            assert stop.signal == number and stop.exit_code == 128 + number
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is ends_otherwise, "the earlier handler is back"
    finally:
        signal.signal(number, before)
