"""Stop strings in a text that grows piece by piece, where one may lie across pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Ends a growing text before the first stop string.

    Text that may be the beginning of a stop string is kept back until it is known whether it is.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._kept_back = ""
        self.is_found = False
        """True once a stop string was found; all text after that is to be ignored."""

    def push(self, piece: str) -> str:
        """Add a piece; returns the text that is now known to lie before any stop string."""
        text = self._kept_back + piece
        positions = [text.find(stop) for stop in self._stops]
        first = min((position for position in positions if position >= 0), default=-1)
        if first >= 0:
            self.is_found = True
            self._kept_back = ""
            return text[:first]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._kept_back = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        """The text that was kept back, when no more pieces come."""
        text = self._kept_back
        self._kept_back = ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, shorter than `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
