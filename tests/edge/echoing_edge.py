"""The edge on a port, before a scripted router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.edge.build import build
from penstock.edge.settings import EdgeSettings
from penstock.rpc.call import Call
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.router import ScriptedRouter, serving_router

USAGE = common_pb2.Usage(input_tokens=30, output_tokens=4, cached_input_tokens=20)


class EchoingRouter(ScriptedRouter):
    """Repeats the last turn in capitals, whole or letter by letter."""

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:
        """See RouterService."""
        self.calls.append((request.options, call))
        self.conversations.append(list(request.task.messages))
        response = pb.GenerateResponse()
        response.result.message.content = _said(request.task)
        response.result.finish_reason = inference_pb2.FINISH_REASON_STOP
        response.receipt.CopyFrom(self._receipt())
        return response

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, call: Call
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """See RouterService; the first fault comes after the second letter."""
        self.calls.append((request.options, call))
        self.conversations.append(list(request.task.messages))
        for number, letter in enumerate(_said(request.task)):
            if number == 2 and self.faults:
                raise self.faults.pop(0)
            yield pb.GenerateStreamResponse(chunk=inference_pb2.GenerateChunk(delta=letter))
        last = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        yield pb.GenerateStreamResponse(chunk=last, receipt=self._receipt())

    def _receipt(self) -> common_pb2.Receipt:
        return common_pb2.Receipt(request_id=f"call-{len(self.calls)}-{id(self)}", usage=USAGE)


def _said(task: inference_pb2.GenerateTask) -> str:
    last = task.messages[-1]
    return (last.content or last.parts[0].text).upper()


class EchoingEdge:
    """The edge's address, and the router behind it."""

    def __init__(self, url: str, router: EchoingRouter) -> None:
        self.url = url
        self.router = router

    @property
    def texts(self) -> list[str]:
        """The turns of the newest conversation."""
        return [turn.content or turn.parts[0].text for turn in self.router.conversations[-1]]


@asynccontextmanager
async def serving_edge(**settings: Any) -> AsyncIterator[EchoingEdge]:
    """The edge on a free port; `settings` are further ones of it."""
    router = EchoingRouter()
    async with serving_router(router) as address:
        given = EdgeSettings(listen="127.0.0.1:0", router_address=address, **settings)
        service = build(given, outside_for_tests(given))
        (port,) = service.ports
        await service.open()
        await port.start()
        try:
            yield EchoingEdge(f"http://{port.address}", router)
        finally:
            await port.stop(None)
            await service.close()
