"""The marker of decisions: functions of their arguments alone.

A pure function is given the time and its chance. It waits for nothing, touches no clock, global
chance, environment, log, file or network, and neither does anything that it calls. The contract
tests check every function and class that carries the marker.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def pure(declared: T) -> T:
    """Declare a function, or every method of a class, to be pure; it is returned as it is."""
    return declared
