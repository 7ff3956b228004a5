"""What was found out about texts that come again: a conversation brings its tool results and the
schemas of its tools with every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.prompts.json_text import compact
from penstock.prompts.references import JsonValue, json_values

T = TypeVar("T")
MAX_BYTES = 8 << 20
"""Of texts and of what is known of them, for each of the two functions."""
VALUE_BYTES = 256
"""Of one `JsonValue` with its numbers and path."""


class KnownTexts(Generic[T]):
    """A pure function of texts that remembers its results, by the whole text; the oldest are
    forgotten. May be called in several threads.

    Args:
        function: computes a result.
        weigh: bytes of a result.
        max_bytes: of all texts and results, with a byte for each character; a text that takes more
            than a quarter of it is not remembered.
    """

    def __init__(
        self,
        function: Callable[[str], T],
        weigh: Callable[[T], int],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._function = function
        self._weigh = weigh
        self._max_bytes = max_bytes
        self._known: dict[str, tuple[T, int]] = {}
        """Results with the bytes of each and its text, the oldest first."""
        self._storing = threading.Lock()
        self.bytes = 0

    def __call__(self, text: str) -> T:
        """The function's result; raises what it raises, which is not remembered."""
        known = self._known.get(text)
        if known is not None:
            return known[0]
        result = self._function(text)
        size = len(text) + self._weigh(result)
        if size <= self._max_bytes // 4:
            self._remember(text, result, size)
        return result

    def _remember(self, text: str, result: T, size: int) -> None:
        with self._storing:
            if text in self._known:
                return
            self._known[text] = result, size
            self.bytes += size
            while self.bytes > self._max_bytes:
                _, freed = self._known.pop(next(iter(self._known)))
                self.bytes -= freed


class JsonTexts:
    """What is known of texts as JSON.

    Attributes:
        compact: see `json_text.compact`.
        values: see `references.json_values`.
    """

    def __init__(self) -> None:
        self.compact = KnownTexts(compact, _compact_bytes)
        self.values = KnownTexts(_values_of, _values_bytes)


def _compact_bytes(shorter: str | None) -> int:
    return len(shorter) if shorter is not None else 0


def _values_of(text: str) -> tuple[JsonValue, ...]:
    return tuple(json_values(text))


def _values_bytes(values: tuple[JsonValue, ...]) -> int:
    return VALUE_BYTES * len(values)
