"""Ctrl-C is noticed where the program waits, and nowhere else."""

from __future__ import annotations

import os
import signal

import pytest
from penstock.cli.interruption import Interruption


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_while_it_waits_it_is_interrupted_at_once() -> None:
    with (
        Interruption() as interruption,
        pytest.raises(KeyboardInterrupt),
        interruption.waiting(),
    ):
        press()
        signal.pause()


def test_what_it_does_otherwise_is_finished_first() -> None:
    done = False
    with Interruption() as interruption:
        press()
        done = True
        with pytest.raises(KeyboardInterrupt), interruption.waiting():
            done = False
    assert done


def test_behind_it_ctrl_c_is_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
