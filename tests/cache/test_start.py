"""A cache serves before it has read its store, and without its store."""

from __future__ import annotations

from pathlib import Path

from penstock.api.common.v1 import common_pb2
from penstock.cache.build import Models
from penstock.service.store import open_store
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.eventually import eventually

from .conftest import Rig


async def test_a_cache_without_its_store_starts_and_says_what_is_wrong(tmp_path: Path) -> None:
    client = open_store(f"unix://{tmp_path / 'nobody'}")
    cache = Rig.assemble(client, Models(None))
    await cache.open()
    missed = await Rig.look_up(cache, chat("hello"))
    assert missed.receipt.outcome == common_pb2.CACHE_OUTCOME_MISS
    assert not cache.is_caught_up
    await cache.close()
    await client.aclose()


async def test_what_the_store_holds_counts_after_a_restart(rig: Rig) -> None:
    first = await rig.make()
    for number in range(5):
        await rig.add(first, chat(f"question {number}"), chat_result(f"answer {number}"))
    again = await rig.make()
    await eventually(lambda: len(again.entries) == len(first.entries) == 5)
    assert again.entries.size_bytes == first.entries.size_bytes
