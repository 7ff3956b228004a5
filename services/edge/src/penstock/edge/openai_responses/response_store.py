"""Where responses are kept, each caller's apart, for a time and up to a number of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import orjson
import redis.asyncio
from penstock.edge.json_fields import Json
from penstock.edge.openai_responses.keeping import KeptResponse
from penstock.edge.openai_responses.request import Context, References, unresolved
from penstock.edge.openai_responses.store_scripts import DELETE, SAVE

RESPONSE, ITEM = "r:", "i:"
"""Begin the names of entries."""


class Bounds(NamedTuple):
    """How much is kept of one caller, and for how long."""

    ttl_s: int = 30 * 24 * 3600
    """Since the last response that needed it."""
    max_bytes: int = 64 * 1024 * 1024
    """The entries that were needed least recently make room."""
    max_items: int = 4096
    """Items that one response refers to; a longer conversation is not kept."""


class ResponseStore(Protocol):
    """The store of responses. `caller` is whom entries belong to: nobody else finds them."""

    async def save(self, caller: str, kept: KeptResponse) -> bool:
        """Keep a response; False where it is larger than the bounds."""
        ...

    async def context(self, caller: str, wanted: References) -> Context:
        """What a request refers to.

        Raises:
            BadRequest: the response before it is not kept.
        """
        ...

    async def inputs(self, caller: str, response_id: str) -> Sequence[Json] | None:
        """The items that a response was made from, oldest first, those of the responses before it
        included; None where it is not kept. An item that is not kept is left out.
        """
        ...

    async def response(self, caller: str, response_id: str) -> bytes | None:
        """The response object; None where it is not kept."""
        ...

    async def delete(self, caller: str, response_id: str) -> bool:
        """Forget a response and its own items; False where it is not kept."""
        ...


class _Record(NamedTuple):
    """A response as it is stored, without its items."""

    response: bytes
    context_ids: tuple[str, ...]
    own_ids: tuple[str, ...]
    inputs: int

    def packed(self) -> bytes:
        """As JSON."""
        told = [orjson.Fragment(self.response), self.context_ids, self.own_ids, self.inputs]
        return orjson.dumps(told)

    @staticmethod
    def unpacked(data: bytes) -> _Record:
        """From JSON."""
        response, context_ids, own_ids, inputs = orjson.loads(data)
        return _Record(orjson.dumps(response), tuple(context_ids), tuple(own_ids), inputs)


class RedisResponseStore:
    """See ResponseStore. Raises redis' own errors.

    All keys of a caller share a hash tag, so that a cluster keeps them together.
    """

    def __init__(self, client: redis.asyncio.Redis, bounds: Bounds) -> None:
        self._client = client
        self._bounds = bounds

    async def save(self, caller: str, kept: KeptResponse) -> bool:
        own_ids = tuple(item["id"] for item in kept.own)
        if len(kept.context_ids) + len(own_ids) > self._bounds.max_items:
            return False
        record = _Record(kept.response, kept.context_ids, own_ids, kept.inputs)
        entries = {RESPONSE + kept.id: record.packed()}
        entries |= {ITEM + item["id"]: orjson.dumps(item) for item in kept.own}
        if sum(map(len, entries.values())) > self._bounds.max_bytes:
            return False
        renewed = (ITEM + each for each in kept.context_ids)
        given: list[bytes | str] = []
        for name, value in [*((each, b"") for each in renewed), *entries.items()]:
            given += [name, value]
        at = _prefix(caller)
        bounds = (self._bounds.ttl_s * 1000, self._bounds.max_bytes)
        await self._client.eval(SAVE, 2, f"{at}sizes", f"{at}ages", at, *bounds, *given)
        return True

    async def context(self, caller: str, wanted: References) -> Context:
        items = await self._before(caller, wanted.previous_response_id)
        ids = [*wanted.item_ids, *wanted.reasoning_ids]
        single = await self._items(caller, ids)
        known = {name: item for name, item in zip(ids, single, strict=True) if item is not None}
        return Context(items, known)

    async def _before(self, caller: str, response_id: str) -> Sequence[Json]:
        """The items of a response and of those before it; none for no response."""
        if not response_id:
            return ()
        record = await self._record(caller, response_id)
        ids = () if record is None else record.context_ids + record.own_ids
        found = await self._items(caller, ids)
        if record is None or None in found:
            raise unresolved("previous_response_id", response_id)
        return [item for item in found if item is not None]

    async def inputs(self, caller: str, response_id: str) -> Sequence[Json] | None:
        record = await self._record(caller, response_id)
        if record is None:
            return None
        ids = record.context_ids + record.own_ids[: record.inputs]
        return [item for item in await self._items(caller, ids) if item is not None]

    async def response(self, caller: str, response_id: str) -> bytes | None:
        record = await self._record(caller, response_id)
        return None if record is None else record.response

    async def delete(self, caller: str, response_id: str) -> bool:
        record = await self._record(caller, response_id)
        if record is None:
            return False
        at = _prefix(caller)
        names = [RESPONSE + response_id, *(ITEM + each for each in record.own_ids)]
        await self._client.eval(DELETE, 2, f"{at}sizes", f"{at}ages", at, *names)
        return True

    async def _record(self, caller: str, response_id: str) -> _Record | None:
        data = await self._client.get(_prefix(caller) + RESPONSE + response_id)
        return None if data is None else _Record.unpacked(cast(bytes, data))

    async def _items(self, caller: str, ids: Sequence[str]) -> list[Json | None]:
        if not ids:
            return []
        at = _prefix(caller)
        found = await self._client.mget([at + ITEM + each for each in ids])
        return [cast(Json, orjson.loads(each)) if each else None for each in found]


def _prefix(caller: str) -> str:
    digest = hashlib.blake2b(caller.encode(), digest_size=16).hexdigest()
    return f"penstock:responses:{{{digest}}}:"
