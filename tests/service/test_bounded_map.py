"""A bounded map holds as many entries as it may, and evicts the least recently used."""

from __future__ import annotations

import pytest
from penstock.service.bounded_map import BoundedMap


def test_the_least_recently_used_entry_is_evicted_and_returned() -> None:
    entries: BoundedMap[str, int] = BoundedMap(2)
    assert entries.put("a", 1) is None
    assert entries.put("b", 2) is None
    assert entries.get("a") == 1
    assert entries.put("c", 3) == ("b", 2)
    assert list(entries.items()) == [("a", 1), ("c", 3)]


def test_put_replaces_a_value_and_counts_as_use() -> None:
    entries: BoundedMap[str, int] = BoundedMap(2)
    entries.put("a", 1)
    entries.put("b", 2)
    assert entries.put("a", 10) is None
    assert entries.put("c", 3) == ("b", 2)
    assert entries.get("a") == 10


def test_peek_does_not_count_as_use() -> None:
    entries: BoundedMap[str, int] = BoundedMap(2)
    entries.put("a", 1)
    entries.put("b", 2)
    assert entries.peek("a") == 1
    assert entries.put("c", 3) == ("a", 1)


def test_absent_keys_give_the_default() -> None:
    entries: BoundedMap[str, int] = BoundedMap(1)
    assert entries.get("a") is None
    assert entries.get("a", 7) == 7
    assert entries.peek("a", 7) == 7
    assert entries.pop("a", 7) == 7


def test_a_removed_entry_is_gone_and_the_others_stay() -> None:
    entries: BoundedMap[str, int] = BoundedMap(3)
    for number, key in enumerate("abc"):
        entries.put(key, number)
    assert entries.pop("b") == 1
    assert ("b" in entries, len(entries), list(entries)) == (False, 2, ["a", "c"])


def test_a_map_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_entries"):
        BoundedMap(0)
