"""Signals that a long-running command waits for."""

import os
import signal

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
