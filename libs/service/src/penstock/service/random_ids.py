"""Identifiers that nobody can guess, drawn from the system's source many at a time: a draw each is
a system call for every request.
"""

from __future__ import annotations

import os

BYTES = 8
DRAWN = 512


class RandomIds:
    """Gives identifiers of 16 hexadecimal digits."""

    def __init__(self) -> None:
        self._left = ""

    def take(self) -> str:
        """The next identifier."""
        if not self._left:
            self._left = os.urandom(BYTES * DRAWN).hex()
        taken, self._left = self._left[-2 * BYTES :], self._left[: -2 * BYTES]
        return taken
