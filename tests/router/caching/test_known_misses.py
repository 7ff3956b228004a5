"""What a router knows of the cache's keys: errs towards asking, hears of new ones, is made anew."""

from __future__ import annotations

import secrets

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.router.caching import known_misses as module
from penstock.router.caching.known_misses import KeySummary
from penstock.tasks.answer_keys import FINGERPRINT_BYTES
from penstock.testkit.chats import chat

from .conftest import BOLT, SALT, Rig, embed, fingerprint, request


def page(*texts: str) -> pb.ListKeysResponse:
    """News of the keys of these texts; all that is kept has been listed."""
    listed = b"".join(map(fingerprint, texts))
    return pb.ListKeysResponse(salt=SALT, cursor="n", complete=True, fingerprints=listed)


def test_a_summary_never_lacks_what_was_added_and_seldom_has_more() -> None:
    summary, added = KeySummary(), [secrets.token_bytes(16) for _ in range(2_000)]
    assert summary.lacks(added[0].hex())
    summary.add(b"".join(key[:FINGERPRINT_BYTES] for key in added))
    assert not any(summary.lacks(key.hex()) for key in added)
    assert sum(summary.lacks(secrets.token_hex(16)) for _ in range(2_000)) >= 1_990


def test_a_summary_is_full_after_as_many_new_keys_as_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RENEW_AFTER", 1)
    summary = KeySummary()
    summary.add(secrets.token_bytes(2 * FINGERPRINT_BYTES))
    assert not summary.is_full, "it is not even complete"
    summary.complete(SALT)
    for _ in range(3):
        assert not summary.is_full
        summary.add(secrets.token_bytes(FINGERPRINT_BYTES))
        summary.complete(SALT)
    summary.add(secrets.token_bytes(FINGERPRINT_BYTES))
    assert summary.is_full


async def test_what_is_known_not_to_be_kept_is_not_looked_up(rig: Rig) -> None:
    await rig.follow("known")
    miss = await rig.miss(embed("unknown"))
    assert miss.cache is not None
    assert miss.cache.rule == "miss: known not to be kept"
    await rig.miss(embed("known"), BOLT)
    assert rig.cache.count("LookUp") == 0


async def test_what_may_be_kept_is_looked_up_and_so_is_what_costs_to_repeat(rig: Rig) -> None:
    await rig.follow("known")
    await rig.miss(embed("known"))
    await rig.miss(request(chat("unknown", max_tokens=5)))
    assert rig.cache.count("LookUp") == 2


async def test_keys_that_come_later_are_heard_of(rig: Rig) -> None:
    await rig.follow()
    rig.cache.pages.append(page("a"))
    await rig.settle(0.2)
    await rig.miss(embed("a"))
    assert rig.cache.count("LookUp") == 1
    assert rig.cache.cursors()[:3] == ["", "s", "now"], "each list begins where the last ended"


async def test_before_all_keys_are_listed_everything_is_looked_up(rig: Rig) -> None:
    rig.cache.open.clear()
    rig.stage.start()
    asked = rig.begin(embed("a"))
    await rig.settle()
    assert rig.cache.calls == ["ListKeys", "LookUp"]
    rig.cache.open.set()
    await asked


async def test_while_the_cache_is_gone_every_key_is_asked_for(rig: Rig) -> None:
    rig.cache.is_gone = True
    await rig.follow()
    assert (await rig.miss(embed("a"))).notes == ("cache unavailable",)
    rig.cache.is_gone = False
    await rig.settle(1.1)
    assert (await rig.miss(embed("b"))).notes == ()
    assert rig.cache.count("LookUp") == 1, "the keys are known again"
    rig.cache.is_gone = True
    await rig.settle(0.2)
    assert (await rig.miss(embed("c"))).notes == ("cache unavailable",)


async def test_a_summary_full_of_what_has_left_is_made_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_AFTER", 1)
    await rig.follow()
    rig.cache.pages.append(page("a", "b", "c"))
    await rig.settle(0.2)
    await rig.settle(0.2)
    assert rig.cache.cursors().count("") == 2
    await rig.miss(embed("a"))
    assert rig.cache.count("LookUp") == 0, "it has left the cache meanwhile"
