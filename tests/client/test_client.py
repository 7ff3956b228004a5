"""The client against a real server with a scripted router behind it: results, errors, retries, both ways of calling, both flavours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    NotFound,
    Penstock,
    PenstockError,
    PenstockSync,
    Refused,
    Unavailable,
)
from penstock.core.auth import Metadata
from penstock.core.call import Call, Principal
from penstock.core.door import Door
from penstock.core.errors import Fault, unauthenticated
from penstock.testkit.server import serving

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
KEY = "psk-client"


class Router:
    """Answers embed, streams and fails as often as told; every other method is there and never called."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.calls: list[tuple[pb.CallOptions, Call]] = []

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        self.calls.append((request.options, call))
        if self.faults:
            raise self.faults.pop(0)
        return pb.EmbedResponse(
            embeddings=[inference_pb2.Embedding(values=[float(len(text))]) for text in request.texts]
        )

    async def GenerateStream(self, request: object, call: Call) -> AsyncIterator[pb.GenerateStreamResponse]:
        for delta in "abc":
            yield pb.GenerateStreamResponse(chunk=inference_pb2.GenerateChunk(delta=delta))
        if self.faults:
            raise self.faults.pop(0)

    def __getattr__(self, name: str) -> object:
        if name in ROUTER.methods_by_name:
            return self._unused
        raise AttributeError(name)

    async def _unused(self, request: object, call: Call) -> None:
        raise AssertionError("not part of these tests")


def authenticate(metadata: Metadata) -> Call:
    if metadata.get("authorization") != f"Bearer {KEY}":
        raise unauthenticated("the API key is not known")
    return Call(Principal("acme"))


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
async def address(router: Router) -> AsyncIterator[str]:
    async with serving([Door(ROUTER, router, authenticate, public=True)]) as server:
        yield server.address


@pytest.fixture(params=[False, True], ids=["stream", "plain"])
async def client(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Penstock]:
    async with Penstock(address, KEY, plain=request.param) as connected:
        yield connected


async def test_three_lines_to_a_result(client: Penstock, router: Router) -> None:
    run = client.run(step="plan", priority="high")
    answer = await client.embed(["four", "seven77"], run=run)
    assert [item.values[0] for item in answer.embeddings] == [4.0, 7.0]
    options, call = router.calls[0]
    assert (options.run_id, options.step) == (run.id, "plan")
    assert call.remaining_s(asyncio.get_running_loop().time()) < 31


async def test_many_at_once(client: Penstock) -> None:
    answers = await asyncio.gather(*(client.embed(["x" * size]) for size in range(1, 200)))
    assert [answer.embeddings[0].values[0] for answer in answers] == [float(size) for size in range(1, 200)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, BadRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Busy),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.INTERNAL, PenstockError),
    ],
)
async def test_each_error_says_what_to_do_and_is_not_tried_again(
    client: Penstock, router: Router, code: grpc.StatusCode, kind: type[PenstockError]
) -> None:
    router.faults = [Fault(code, "texts[2]: no", field="texts[2]", reason="WHY", retry_after_s=2.0)]
    with pytest.raises(kind) as caught:
        await client.embed(["x"])
    assert type(caught.value) is kind
    assert (caught.value.field, caught.value.reason, caught.value.retry_after_s) == ("texts[2]", "WHY", 2.0)
    assert kind.advice in str(caught.value)
    assert len(router.calls) == 1


async def test_unavailable_is_tried_again_and_then_told(client: Penstock, router: Router) -> None:
    router.faults = [Fault(grpc.StatusCode.UNAVAILABLE, "no")] * 2
    assert (await client.embed(["x"])).embeddings
    router.faults = [Fault(grpc.StatusCode.UNAVAILABLE, "no")] * 5
    with pytest.raises(Unavailable):
        await client.embed(["x"])
    assert len(router.calls) == 6


async def test_a_cut_stream_raises(client: Penstock, router: Router) -> None:
    task = inference_pb2.GenerateTask(messages=[inference_pb2.Message(role="user", content="hi")])
    assert [part.chunk.delta async for part in client.generate_stream(task)] == ["a", "b", "c"]
    router.faults = [Fault(grpc.StatusCode.UNAVAILABLE, "cut")]
    with pytest.raises(Unavailable):
        _ = [part async for part in client.generate_stream(task)]


async def test_a_wrong_key_is_refused(address: str) -> None:
    async with Penstock(address, "wrong") as client:
        with pytest.raises(Refused):
            await client.embed(["x"])


def _use_sync(address: str, out: list[object]) -> None:
    with PenstockSync(address, KEY) as client:
        out.append(client.embed(["four"]).embeddings[0].values[0])
        task = inference_pb2.GenerateTask(messages=[inference_pb2.Message(role="user", content="hi")])
        parts: Iterator[pb.GenerateStreamResponse] = client.generate_stream(task)
        out.append("".join(part.chunk.delta for part in parts))


async def test_without_asyncio(address: str) -> None:
    """The sync client runs in a process of its own in real use; here a thread drives it, with its own loop, as a plain program would."""
    out: list[object] = []
    thread = threading.Thread(target=_use_sync, args=(address, out))
    thread.start()
    await asyncio.to_thread(thread.join, 20)
    assert out == [4.0, "abc"]
