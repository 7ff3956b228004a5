"""Exchange at the public port: one long-lived stream that carries items of the other RPCs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Caller, chat, options, refused
from .instance import Asked, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
OK, INVALID, CANCELLED, LATE = 0, 3, 1, 4


class Stream:
    """An open stream: items in, results by item."""

    def __init__(self, caller: Caller) -> None:
        self._call = caller.api.router.Exchange(metadata=caller.metadata)
        self._reader = asyncio.create_task(self._read())
        self.results: dict[int, list[common_pb2.ItemResult]] = {}
        self.credits = 0

    async def _read(self) -> None:
        async for frame in self._call:
            self.credits += frame.credits
            for result in frame.results:
                self.results.setdefault(result.id, []).append(result)

    async def send(self, *items: common_pb2.Item, cancel: tuple[int, ...] = ()) -> None:
        await self._call.write(
            pb.ExchangeRequest(items=items, cancelled_ids=cancel, credits=len(items) * 10)
        )

    async def ended(self, item_id: int) -> common_pb2.ItemStatus:
        """The status of an item once it has ended."""

        def last() -> bool:
            return bool(self.results.get(item_id)) and self.results[item_id][-1].HasField("status")

        await eventually(last)
        return self.results[item_id][-1].status

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def stream(caller: Caller) -> AsyncIterator[Stream]:
    opened = Stream(caller)
    yield opened
    await opened.close()


def item(number: int, method: str, request: Any, **context: Any) -> common_pb2.Item:
    return common_pb2.Item(
        id=number,
        method=method,
        payload=request.SerializeToString(),
        context=common_pb2.CallContext(**{"remaining_ms": 20_000, **context}),
    )


def embed(text: str) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=[text], options=options(cache=BYPASS))


async def test_items_of_several_rpcs_are_answered_on_one_stream(stream: Stream) -> None:
    conversation = pb.GenerateStreamRequest(
        task=chat("two words"), options=options(model="chat", cache=BYPASS)
    )
    await stream.send(
        item(1, "Embed", embed("hello")),
        item(2, "GenerateStream", conversation),
        item(3, "ListModels", pb.ListModelsRequest()),
    )
    assert [(await stream.ended(number)).code for number in (1, 2, 3)] == [OK, OK, OK]
    embedded = pb.EmbedResponse.FromString(stream.results[1][-1].payload)
    assert len(embedded.embeddings[0].values) == 384
    pieces = [pb.GenerateStreamResponse.FromString(row.payload) for row in stream.results[2][:-1]]
    assert "".join(piece.chunk.delta for piece in pieces) == "two words"
    assert pieces[-1].receipt.model == "chat"
    assert not stream.results[2][-1].payload
    assert stream.credits > 0


async def test_an_item_that_fails_ends_by_itself(stream: Stream) -> None:
    await stream.send(
        item(1, "Embed", embed(" ")),
        item(2, "Nothing", pb.ListModelsRequest()),
        common_pb2.Item(
            id=3,
            method="Embed",
            payload=b"\xff\xff",
            context=common_pb2.CallContext(remaining_ms=9_000),
        ),
        item(4, "Embed", embed("fine")),
        item(5, "Embed", embed("late"), remaining_ms=-1),
    )
    told = {number: await stream.ended(number) for number in range(1, 6)}
    assert {number: status.code for number, status in told.items()} == {
        1: INVALID,
        2: INVALID,
        3: INVALID,
        4: OK,
        5: LATE,
    }
    assert (told[1].field, told[2].field) == ("texts[0]", "method")


async def test_a_caller_may_say_what_is_its_own_to_say_and_nothing_of_who_pays(
    caller: Caller, stream: Stream, model: str, serve: Serve
) -> None:
    request = pb.GenerateRequest(task=chat("x"), options=options(model=model, cache=BYPASS))
    async with serve(echo, model) as instance:
        claimed = common_pb2.Principal(organisation="somebody-else", tags=["rich"])
        await stream.send(
            item(
                1,
                "Generate",
                request,
                principal=claimed,
                run_id="run-x",
                step="s",
                priority=common_pb2.PRIORITY_HIGH,
            )
        )
        assert (await stream.ended(1)).code == OK
    context = instance.asked[0].context
    assert context.principal.organisation == caller.key
    assert not context.principal.tags
    assert (context.run_id, context.step) == ("run-x", "s")
    assert context.priority == common_pb2.PRIORITY_HIGH


async def test_an_item_is_cancelled_by_its_number(stream: Stream, model: str, serve: Serve) -> None:
    async def never(asked: Asked) -> AsyncIterator[inference_pb2.TaskResult]:
        await asyncio.Event().wait()
        yield said("never")

    request = pb.GenerateRequest(task=chat("x"), options=options(model=model, cache=BYPASS))
    async with serve(never, model) as instance:
        await stream.send(item(1, "Generate", request))
        await eventually(lambda: len(instance.asked) == 1)
        await stream.send(item(2, "Embed", embed("fine")), cancel=(1,))
        assert (await stream.ended(1)).code == CANCELLED
        await eventually(lambda: len(instance.cancelled) == 1)
    assert (await stream.ended(2)).code == OK


async def test_the_stream_wants_a_key(caller: Caller) -> None:
    call = caller.api.router.Exchange()
    assert (await refused(call.read())).code == "UNAUTHENTICATED"
