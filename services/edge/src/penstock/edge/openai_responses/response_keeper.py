"""What the edge does with the store of responses: it fetches what a request refers to, keeps what
was answered, and shows and deletes what is kept.

A store that does not answer costs what needs it: a request that refers to something fails, one that
does not is served, and its response is not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import TypeVar

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json, parse_body, refused
from penstock.edge.openai_responses.keeping import KeptResponse, page_of
from penstock.edge.openai_responses.request import Context, References
from penstock.edge.openai_responses.response_store import ResponseStore
from penstock.edge.openai_responses.wire import (
    NOTHING,
    OpenAIResponses,
    ResponseAsked,
    ResponseEvents,
)
from penstock.edge.wire import Asked, Events, Headers, Identity
from penstock.rpc.errors import Fault, not_found, unavailable
from penstock.rpc.reasons import Reason
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
T = TypeVar("T")
WIRE = OpenAIResponses()
PAGE_LIMIT, MAX_PAGE_LIMIT = 20, 100


class ResponseKeeper:
    """The responses of all callers. `caller` is whom they belong to. Without a store nothing is
    kept, and whatever a request refers to is refused.
    """

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store

    async def read(self, caller: str, body: bytes, headers: Headers) -> ResponseAsked:
        """A request, with what it refers to.

        Raises:
            BadRequest: naming the field that is wrong, or a reference to what is not kept.
            Fault: STORE_UNAVAILABLE.
        """
        given = parse_body(body)
        context = await self._context(caller, given)
        return WIRE.read_given(given, context, keeps=self._store is not None)

    async def read_count(self, caller: str, body: bytes) -> Asked:
        """A request for a count of tokens, with what it refers to.

        Raises:
            BadRequest, Fault: as `read`.
        """
        given = WIRE.countable(body)
        return WIRE.read_count(given, await self._context(caller, given))

    async def _context(self, caller: str, given: Json) -> Context:
        wanted = WIRE.needs(given)
        if self._store is None or wanted == References():
            return NOTHING
        return await _answer(self._store.context(caller, wanted))

    async def cancel(self, caller: str, response_id: str) -> bytes:
        """The body of `POST /v1/responses/{id}/cancel`, which there is for responses that are made
        in the background only.

        Raises:
            BadRequest: it was made while its caller waited.
            Fault: NOT_FOUND, STORE_UNAVAILABLE.
        """
        await self.response(caller, response_id)
        raise refused("response_id", "the response has ended; none is made in the background")

    async def keep_whole(
        self,
        caller: str,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> None:
        """Keep a whole answer, if its caller wants it kept."""
        await self._keep(caller, WIRE.kept(result, usage, asked, identity))

    async def keep_streamed(self, caller: str, events: ResponseEvents) -> None:
        """Keep an answer whose last events are made, if its caller wants it kept."""
        await self._keep(caller, events.kept())

    def of(self, caller: str) -> CallersResponses:
        """The responses of one caller."""
        return CallersResponses(self, caller)

    async def _keep(self, caller: str, kept: KeptResponse | None) -> None:
        if kept is None or self._store is None:
            return
        try:
            if not await self._store.save(caller, kept):
                log.info("response %s is larger than may be kept; it is not kept", kept.id)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("response %s is not kept: %s", kept.id, error)

    async def response(self, caller: str, response_id: str) -> bytes:
        """The body of `GET /v1/responses/{id}`.

        Raises:
            Fault: NOT_FOUND, STORE_UNAVAILABLE.
        """
        store = self._store
        found = await _answer(store.response(caller, response_id)) if store else None
        if found is None:
            raise _missing(response_id)
        return found

    async def delete(self, caller: str, response_id: str) -> bytes:
        """The body of `DELETE /v1/responses/{id}`.

        Raises:
            Fault: NOT_FOUND, STORE_UNAVAILABLE.
        """
        store = self._store
        if store is None or not await _answer(store.delete(caller, response_id)):
            raise _missing(response_id)
        return orjson.dumps({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, caller: str, response_id: str, query: Mapping[str, str]) -> bytes:
        """The body of `GET /v1/responses/{id}/input_items`.

        Args:
            query: `limit`, `order` and `after`.

        Raises:
            BadRequest: naming the parameter that is wrong.
            Fault: NOT_FOUND, STORE_UNAVAILABLE.
        """
        limit, order = query.get("limit", str(PAGE_LIMIT)), query.get("order", "desc")
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MAX_PAGE_LIMIT:
            raise refused("limit", f"must be between 1 and {MAX_PAGE_LIMIT}")
        if order not in ("asc", "desc"):
            raise refused("order", "must be one of asc, desc")
        store = self._store
        items = await _answer(store.inputs(caller, response_id)) if store else None
        if items is None:
            raise _missing(response_id)
        after, is_ascending = query.get("after", ""), order == "asc"
        return orjson.dumps(
            page_of(items, limit=int(limit), is_ascending=is_ascending, after=after)
        )


class CallersResponses:
    """Keeps the responses of one caller, before their end is told. See Keeping."""

    def __init__(self, keeper: ResponseKeeper, caller: str) -> None:
        self._keeper, self._caller = keeper, caller

    async def whole(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> None:
        """See Keeping."""
        await self._keeper.keep_whole(self._caller, result, usage, asked, identity)

    async def streamed(self, events: Events) -> None:
        """See Keeping."""
        if not isinstance(events, ResponseEvents):
            raise TypeError("the answer was rendered by another wire")
        await self._keeper.keep_streamed(self._caller, events)


async def _answer(asked: Awaitable[T]) -> T:
    """What the store says.

    Raises:
        Fault: STORE_UNAVAILABLE where it does not answer.
    """
    try:
        return await asked
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("the store of responses does not answer: %s", error)
        raise _unavailable() from None


def _unavailable() -> Fault:
    message = "the store of responses does not answer; retry later, or send the items themselves"
    return unavailable(message, reason=Reason.STORE_UNAVAILABLE)


def _missing(response_id: str) -> Fault:
    message = f"{response_id!r} is not kept here: it was never stored, has expired or was deleted"
    return not_found("response_id", message)
