"""Receipts that can be asked for at any edge of a deployment, by the key that got the answer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import redis.asyncio
from echoing_edge import EchoingEdge, serving_edge
from penstock.api.common.v1 import common_pb2
from penstock.edge.receipt_store import ReceiptBounds, RedisReceiptStore
from penstock.edge.receipts import Receipts
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually
from penstock.testkit.router import KEY

ANN, BOB = "psk-ann", "psk-bob"


@pytest.fixture
async def store_url(tmp_path: Path) -> AsyncIterator[str]:
    async with embedded_store(tmp_path / "redis") as url:
        yield url


@pytest.fixture
async def client(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    opened = open_store(store_url)
    yield opened
    await opened.aclose()


def receipt(number: int) -> common_pb2.Receipt:
    return common_pb2.Receipt(request_id=f"r{number}", model="m")


async def chat(edge: EchoingEdge, *, stream: bool) -> str:
    """The identifier of the receipt of a chat."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        answer = await http.post(f"{edge.url}/v1/chat/completions", json=body)
    told = answer.headers.get("x-penstock-receipt", "") or answer.text
    (request_id,) = re.findall(r"id=([^;]+);model", told)
    return str(request_id)


async def asked_for(edge: EchoingEdge, request_id: str, key: str = KEY) -> httpx.Response:
    headers = {"x-api-key": key}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        return await http.get(f"{edge.url}/v1/receipts/{request_id}")


@pytest.mark.parametrize("stream", [False, True])
async def test_any_edge_shows_a_receipt_of_the_same_key(store_url: str, stream: bool) -> None:
    async with (
        serving_edge(cache_url=store_url) as gave,
        serving_edge(cache_url=store_url) as other,
        serving_edge() as elsewhere,
    ):
        request_id = await chat(gave, stream=stream)
        at_once = await asked_for(gave, request_id)

        async def is_shown() -> None:
            shown = await asked_for(other, request_id)
            assert shown.status_code == 200
            assert shown.json() == at_once.json()

        await eventually(is_shown)
        assert at_once.json()["request_id"] == request_id
        assert (await asked_for(elsewhere, request_id)).status_code == 404
        assert (await asked_for(other, request_id, "psk-nobody")).status_code == 401
        assert (await asked_for(other, "none")).json()["error"]["code"] == "receipt_not_found"


async def test_a_receipt_is_saved_before_an_edge_ends(store_url: str) -> None:
    async with serving_edge(cache_url=store_url) as gave:
        request_id = await chat(gave, stream=False)
    async with serving_edge(cache_url=store_url) as other:
        assert (await asked_for(other, request_id)).status_code == 200


async def test_receipts_belong_to_their_key(client: redis.asyncio.Redis) -> None:
    store = RedisReceiptStore(client, ReceiptBounds())
    receipts = Receipts(10, store)
    receipts.keep(ANN, receipt(1))
    await receipts.close()
    for each in (receipts, Receipts(10, store)):
        assert await each.find(BOB, "r1") is None
        assert await each.find(ANN, "r1") == {"request_id": "r1", "model": "m"}


async def test_the_oldest_of_a_key_make_room(client: redis.asyncio.Redis) -> None:
    store = RedisReceiptStore(client, ReceiptBounds(receipts=3))
    for number in range(5):
        await store.save("ann", {f"r{number}": b"x", f"s{number}": b"y"})
        await store.save("ann", {f"r{number}": b"again"})
    await store.save("bob", {"r0": b"x"})
    names = [f"{kind}{number}" for number in range(5) for kind in "rs"]
    kept = [name for name in names if await store.find("ann", name) is not None]
    assert kept == ["s3", "r4", "s4"]
    assert await store.find("bob", "r0") == b"x"
    counts = [await client.hlen(key) for key in await client.keys("*kept")]  # type: ignore[misc]
    assert sorted(counts) == [1, 3]


async def test_receipts_expire(client: redis.asyncio.Redis) -> None:
    store = RedisReceiptStore(client, ReceiptBounds(ttl_s=1))
    await store.save("ann", {"r1": b"x"})

    async def is_gone() -> bool:
        return not await client.keys("*")

    await eventually(is_gone)


async def test_a_store_that_does_not_answer_costs_no_answer(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as running:
        url = await running.enter_async_context(embedded_store(tmp_path / "redis"))
        opened = open_store(url)
        await running.aclose()
        receipts = Receipts(10, RedisReceiptStore(opened, ReceiptBounds()))
        receipts.keep(ANN, receipt(1))
        assert await receipts.find(ANN, "r1") is not None
        with pytest.raises(Fault) as unknown:
            await receipts.find(ANN, "r2")
        assert unknown.value.reason is Reason.STORE_UNAVAILABLE
        await receipts.close()
        await opened.aclose()
