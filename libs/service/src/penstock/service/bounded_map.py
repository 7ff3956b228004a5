"""A mapping with a bounded number of entries, of which the least recently used leaves first (LRU).

Whatever a caller can make grow, such as records by tenant or by request id, belongs in one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterator
from typing import Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class BoundedMap(Generic[K, V]):
    """Holds at most `max_entries` entries; `get` and `put` count as use, `peek` does not.

    Iteration goes from the least to the most recently used key. Not thread-safe.
    """

    __slots__ = ("_entries", "_max_entries")

    def __init__(self, max_entries: int) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries is {max_entries}; it must be at least 1")
        self._max_entries = max_entries
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def items(self) -> ItemsView[K, V]:
        """A view of all entries, the least recently used first."""
        return self._entries.items()

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Set the value of a key.

        Returns the entry that was evicted to make room, for callers that have to release it.
        """
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            return self._entries.popitem(last=False)
        return None

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value of a key, which is now the most recently used; `default` where it is absent."""
        if key not in self._entries:
            return default
        self._entries.move_to_end(key)
        return self._entries[key]

    @overload
    def peek(self, key: K) -> V | None: ...

    @overload
    def peek(self, key: K, default: D) -> V | D: ...

    def peek(self, key: K, default: D | None = None) -> V | D | None:
        """The value of a key without using it; `default` where it is absent."""
        return self._entries.get(key, default)

    @overload
    def pop(self, key: K) -> V | None: ...

    @overload
    def pop(self, key: K, default: D) -> V | D: ...

    def pop(self, key: K, default: D | None = None) -> V | D | None:
        """Remove a key and return its value; `default` where it is absent."""
        return self._entries.pop(key, default)
