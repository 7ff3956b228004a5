"""The copy of the latest exact hits: young entries only, bounded, the least used first out."""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.router.caching import near_cache as module
from penstock.router.caching.near_cache import LIFE_S, NearCache, RequestKey
from penstock.tasks.kind import TaskResult

from .conftest import answer

SAVING = common_pb2.Saving(technique="exact_cache", microusd=9)


def key(name: str, organisation: str = "acme") -> RequestKey:
    return RequestKey(organisation, organisation, "m", name.encode())


def kept(*names: str, now: float = 0.0) -> NearCache:
    """A cache with an answer for each of these keys."""
    near = NearCache()
    for name in names:
        near.put(key(name), answer(name), SAVING, 0.0, now)
    return near


def test_an_entry_lives_for_a_second() -> None:
    near = kept("a", now=10.0)
    assert near.get(key("a"), 0, 10.0 + LIFE_S - 0.001) is not None
    assert near.get(key("a"), 0, 10.0 + LIFE_S) is None
    assert near.get(key("b"), 0, 10.0) is None


def test_a_hit_says_what_it_saves_and_how_old_the_answer_is() -> None:
    near = NearCache()
    near.put(key("a"), answer("7"), SAVING, 2.0, 10.0)
    for now, age_ms in ((10.25, 2_250), (10.5, 2_500)):
        hit = near.get(key("a"), 0, now)
        assert hit is not None
        assert hit.cache == common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule="exact: copy", age_ms=age_ms
        )
        assert (hit.result.revision, hit.savings) == ("7", (SAVING,))


@pytest.mark.parametrize(
    ("max_age_ms", "is_hit"), [(0, True), (2_500, True), (2_499, False), (1, False)]
)
def test_an_answer_that_is_too_old_for_the_caller_is_no_hit(max_age_ms: int, is_hit: bool) -> None:
    near = NearCache()
    near.put(key("a"), answer("7"), SAVING, 2.0, 10.0)
    assert (near.get(key("a"), max_age_ms, 10.5) is not None) is is_hit


def test_an_organisation_can_be_forgotten() -> None:
    near = kept("a", "b")
    near.put(key("a", "bolt"), answer("a"), SAVING, 0.0, 0.0)
    near.forget("acme")
    assert len(near) == 1
    assert near.get(key("a", "bolt"), 0, 0.0) is not None


def test_the_least_recently_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = answer("a").ByteSize() + module.ENTRY_OVERHEAD_BYTES
    monkeypatch.setattr(module, "CAPACITY_BYTES", 3 * size)
    near = kept("a", "b", "c")
    near.get(key("a"), 0, 0.0)
    near.put(key("d"), answer("d"), SAVING, 0.0, 0.0)
    assert [name for name in "abcd" if near.get(key(name), 0, 0.0)] == ["a", "c", "d"]


def test_bytes_are_given_back_when_an_entry_is_replaced_or_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = answer("a").ByteSize() + module.ENTRY_OVERHEAD_BYTES
    monkeypatch.setattr(module, "CAPACITY_BYTES", 2 * size)
    near = kept(*"a" * 10, "b")
    assert len(near) == 2
    near.forget("acme")
    near.put(key("a", "bolt"), answer("a"), SAVING, 0.0, 0.0)
    near.put(key("b", "bolt"), answer("b"), SAVING, 0.0, 0.0)
    assert len(near) == 2


def test_what_is_larger_than_everything_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY_BYTES", 1_000)
    near = kept("a")
    near.put(key("large"), TaskResult(revision="x" * 2_000), SAVING, 0.0, 0.0)
    assert len(near) == 0
