"""Where a growing text ends: stop strings that may lie across tokens. Plain values only."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Given text piece by piece, says what may be shown: nothing of a stop string, and nothing that
    may yet become one.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.met = False
        """True once a stop string was seen; nothing is to be shown after that."""

    def show(self, piece: str) -> str:
        """The text that `piece` makes safe to show."""
        text = self._held + piece
        found = min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.met, self._held = True, ""
            return text[:found]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next(
        (
            size
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        ),
        0,
    )
