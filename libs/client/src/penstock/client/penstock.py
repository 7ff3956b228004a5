"""The asyncio client. Concurrent calls share one multiplexed stream to the router; `plain=True` makes a unary call each instead."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal

from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client.errors import Unavailable, of_fault
from penstock.core.call import Call
from penstock.core.clock import Clock, SystemClock
from penstock.core.errors import Fault
from penstock.core.hop import Peer, connect, open_channel
from penstock.core.hop_unary import UnaryPeer

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
Priority = Literal["low", "normal", "high", "critical"]
PRIORITIES: Mapping[str, int] = {
    "low": common_pb2.PRIORITY_LOW,
    "normal": common_pb2.PRIORITY_NORMAL,
    "high": common_pb2.PRIORITY_HIGH,
    "critical": common_pb2.PRIORITY_CRITICAL,
}
BACK_OFF_S = 0.05


@dataclass(frozen=True)
class Run:
    """One agent run: its calls share an id, and with it a trace, a budget and a cancel. `timeout_s` is for each call."""

    id: str
    step: str = ""
    priority: Priority = "normal"
    timeout_s: float = 30.0

    def at(self, step: str) -> Run:
        """The same run at another step."""
        return replace(self, step=step)


class Penstock:
    """A connection to a router. Use it as an async context manager, or `close` it.

    Args:
        address: `host:port` or `unix:/path` of the router.
        key: API key.
        retries: further attempts after UNAVAILABLE, with jittered back-off; never after any other error, never for a stream that has begun.
        plain: a unary call each instead of the shared stream.
    """

    def __init__(
        self, address: str, key: str, *, retries: int = 2, plain: bool = False, clock: Clock | None = None
    ) -> None:
        metadata = (("authorization", f"Bearer {key}"),)
        self._clock = clock or SystemClock()
        self._retries = retries
        self._peer: Peer = (
            UnaryPeer(open_channel(address), ROUTER, metadata=metadata)
            if plain
            else connect(address, ROUTER, metadata=metadata)
        )

    @staticmethod
    def run(step: str = "", priority: Priority = "normal", timeout_s: float = 30.0) -> Run:
        """Begin an agent run with an id of its own."""
        return Run(uuid.uuid4().hex, step, priority, timeout_s)

    async def embed(self, texts: Sequence[str], *, model: str = "", run: Run | None = None) -> pb.EmbedResponse:
        """Turn texts into vectors; raises PenstockError."""
        run = run or self.run()
        answer: pb.EmbedResponse = await self._call(
            "Embed", pb.EmbedRequest(options=_options(model, run), texts=texts), run
        )
        return answer

    async def classify(
        self,
        texts: Sequence[str],
        examples: Mapping[str, Sequence[str]] | None = None,
        *,
        model: str = "",
        top_k: int = 1,
        run: Run | None = None,
    ) -> pb.ClassifyResponse:
        """Choose labels for texts, by `examples` (texts by label) or the model's own head; raises PenstockError."""
        run = run or self.run()
        labelled = [
            inference_pb2.LabelledExample(label=label, text=text)
            for label, group in (examples or {}).items()
            for text in group
        ]
        request = pb.ClassifyRequest(options=_options(model, run), texts=texts, examples=labelled, top_k=top_k)
        answer: pb.ClassifyResponse = await self._call("Classify", request, run)
        return answer

    async def generate(
        self, task: inference_pb2.GenerateTask, *, model: str = "", run: Run | None = None
    ) -> pb.GenerateResponse:
        """Continue a conversation and return the whole answer; raises PenstockError."""
        run = run or self.run()
        answer: pb.GenerateResponse = await self._call(
            "Generate", pb.GenerateRequest(options=_options(model, run), task=task), run
        )
        return answer

    async def generate_stream(
        self, task: inference_pb2.GenerateTask, *, model: str = "", run: Run | None = None
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Continue a conversation piece by piece; the last piece has the receipt. A cut stream raises, it never just ends."""
        run = run or self.run()
        request = pb.GenerateStreamRequest(options=_options(model, run), task=task)
        try:
            async for part in self._peer.stream("GenerateStream", request, self._as_call(run)):
                yield part
        except Fault as fault:
            raise of_fault(fault) from None

    async def infer(
        self, task: inference_pb2.InferTask, *, model: str = "", run: Run | None = None
    ) -> pb.InferResponse:
        """Run a model on raw tensors; raises PenstockError."""
        run = run or self.run()
        answer: pb.InferResponse = await self._call(
            "Infer", pb.InferRequest(options=_options(model, run), task=task), run
        )
        return answer

    async def list_models(self) -> pb.ListModelsResponse:
        """The models that can be asked for; raises PenstockError."""
        answer: pb.ListModelsResponse = await self._call("ListModels", pb.ListModelsRequest(), self.run(timeout_s=5))
        return answer

    async def cancel_run(self, run: Run) -> int:
        """Cancel every call of a run; returns how many there were."""
        answer: pb.CancelRunResponse = await self._call(
            "CancelRun", pb.CancelRunRequest(run_id=run.id), self.run(timeout_s=5)
        )
        return answer.cancelled_calls

    async def close(self) -> None:
        """Close the connection."""
        await self._peer.close()

    async def __aenter__(self) -> Penstock:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, request: Message, run: Run) -> Any:
        call = self._as_call(run)
        for attempt in range(self._retries + 1):
            try:
                return await self._peer.call(method, request, call)
            except Fault as fault:
                error = of_fault(fault)
                wait_s = max(fault.retry_after_s, BACK_OFF_S * 2**attempt) * random.uniform(0.5, 1.0)
                no_time = call.remaining_s(self._clock.monotonic()) <= wait_s
                if not isinstance(error, Unavailable) or attempt == self._retries or no_time:
                    raise error from None
                await asyncio.sleep(wait_s)
        raise AssertionError("the loop above returns or raises")

    def _as_call(self, run: Run) -> Call:
        return Call(
            priority=PRIORITIES[run.priority],
            run_id=run.id,
            step=run.step,
            deadline_s=self._clock.monotonic() + run.timeout_s,
        )


def _options(model: str, run: Run) -> pb.CallOptions:
    priority = PRIORITIES[run.priority]
    return pb.CallOptions(model=model, run_id=run.id, step=run.step, priority=priority)  # type: ignore[arg-type]
