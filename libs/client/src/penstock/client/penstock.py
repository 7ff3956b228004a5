"""The asyncio client.

Concurrent calls share one multiplexed stream to the router; `plain=True` makes a unary call each
instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from google.protobuf.message import Message
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import requests
from penstock.client.background import check_process
from penstock.client.errors import PenstockError, bad, not_open, of_fault
from penstock.client.retries import pause_s
from penstock.client.run import Priority, Run, new_run
from penstock.rpc.call import PRIORITIES, Call
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock, SystemClock

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]


class Penstock:
    """A connection to a router, made with the first call.

    Use it as an async context manager, or `close` it.

    Every method takes `run`, which says run id, step, priority and the time of each call (default:
    an id of its own, 30 s), and those that ask a model take `options`, for everything else that the
    contract's CallOptions can say. Every failure is a PenstockError.

    Args:
        address: `host:port` or `unix:/path` of the router.
        key: API key.
        retries: further attempts after UNAVAILABLE, with jittered back-off, about a second in all:
            the time a router needs to start again; never after any other error, never for a stream
            that has begun.
        plain: a unary call each instead of the shared stream.
        clock: where time comes from.
        rng: what jitters the back-off.

    Raises:
        BadRequest: address, key or retries cannot be used.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        retries: int = 3,
        plain: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        requests.check_connection(address, key, retries)
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._retries = retries
        self._plain = plain
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._peer: Peer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @staticmethod
    def run(step: str = "", priority: Priority = "normal", timeout_s: float = 30.0) -> Run:
        """Begin an agent run with an id of its own."""
        return new_run(step, priority, timeout_s)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.EmbedResponse:
        """Turn texts into vectors."""
        run = run or new_run()
        request = pb.EmbedRequest(
            options=requests.options_of(model, run, options),
            texts=requests.texts_of("texts", texts),
        )
        answer: pb.EmbedResponse = await self.call("Embed", request, run)
        return answer

    async def classify(
        self,
        texts: Sequence[str],
        examples: Mapping[str, Sequence[str]] | None = None,
        *,
        model: str = "",
        top_k: int = 1,
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.ClassifyResponse:
        """Choose labels for texts, by `examples` (texts by label) or the model's own head."""
        run = run or new_run()
        request = pb.ClassifyRequest(
            options=requests.options_of(model, run, options),
            texts=requests.texts_of("texts", texts),
            examples=requests.labelled(examples),
            top_k=requests.count_of(top_k),
        )
        answer: pb.ClassifyResponse = await self.call("Classify", request, run)
        return answer

    async def generate(
        self,
        task: inference_pb2.GenerateTask | str,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.GenerateResponse:
        """Continue a conversation, or answer a text, and return the whole answer."""
        run = run or new_run()
        request = pb.GenerateRequest(
            options=requests.options_of(model, run, options), task=requests.conversation(task)
        )
        answer: pb.GenerateResponse = await self.call("Generate", request, run)
        return answer

    async def generate_stream(
        self,
        task: inference_pb2.GenerateTask | str,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Continue a conversation piece by piece; the last piece has the receipt.

        A cut stream raises, it never just ends.
        """
        run = run or new_run()
        request = pb.GenerateStreamRequest(
            options=requests.options_of(model, run, options), task=requests.conversation(task)
        )
        call, begun = self._as_call(run), False
        for attempt in itertools.count():
            try:
                async with contextlib.aclosing(
                    self._open().stream("GenerateStream", request, call)
                ) as parts:  # type: ignore[type-var]
                    async for part in parts:
                        begun = True
                        yield part
                return
            except Fault as fault:
                wait_s = self._pause_s(fault, self._retries if begun else attempt, call)
            await self._clock.sleep(wait_s)

    async def infer(
        self,
        task: inference_pb2.InferTask,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.InferResponse:
        """Run a model on raw tensors."""
        run = run or new_run()
        request = pb.InferRequest(options=requests.options_of(model, run, options), task=task)
        answer: pb.InferResponse = await self.call("Infer", request, run)
        return answer

    async def list_models(self) -> pb.ListModelsResponse:
        """The models that can be asked for."""
        answer: pb.ListModelsResponse = await self.call(
            "ListModels", pb.ListModelsRequest(), new_run(timeout_s=5)
        )
        return answer

    async def cancel_run(self, run: Run) -> int:
        """Cancel every call of a run; returns how many there were."""
        request = pb.CancelRunRequest(run_id=run.id)
        answer: pb.CancelRunResponse = await self.call("CancelRun", request, new_run(timeout_s=5))
        return answer.cancelled_calls

    async def call(self, method: str, request: Message, run: Run | None = None) -> Any:
        """Any other unary RPC of RouterService by its name, such as SendFeedback or GetJob; returns
        its response message.

        It may be sent more than once, so a SubmitJob should carry an idempotency token.
        """
        if method not in ROUTER.methods_by_name or ROUTER.methods_by_name[method].server_streaming:
            raise bad("method", f"{method!r} is not a unary RPC of {ROUTER.full_name}")
        call = self._as_call(run or new_run())
        for attempt in itertools.count():
            try:
                return await self._open().call(method, request, call)
            except Fault as fault:
                wait_s = self._pause_s(fault, attempt, call)
            await self._clock.sleep(wait_s)
        raise AssertionError("the loop above returns or raises")

    async def close(self) -> None:
        """Close the connection; calls in flight fail. Closing again does nothing."""
        self._closed = True
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def __aenter__(self) -> Penstock:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _open(self) -> Peer:
        """The connection, which belongs to the event loop of its first call."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise not_open("the client was closed")
        if self._peer is None:
            check_process()
            self._loop = loop
            self._peer = (
                UnaryPeer(
                    open_channel(self._address), ROUTER, metadata=self._metadata, clock=self._clock
                )
                if self._plain
                else connect(self._address, ROUTER, metadata=self._metadata, clock=self._clock)
            )
        elif loop is not self._loop:
            raise not_open(
                "the client was opened in another event loop, in an earlier asyncio.run perhaps"
            )
        return self._peer

    def _pause_s(self, fault: Fault, attempt: int, call: Call) -> float:
        """Seconds until the next attempt; raises what the caller is told when there is none."""
        if self._closed:
            raise not_open("the client was closed while the call was under way") from None
        left_s = call.remaining_s(self._clock.monotonic())
        wait_s = pause_s(fault, attempt, self._retries, left_s, self._rng)
        if wait_s is None:
            raise self._told(fault) from None
        return wait_s

    def _told(self, fault: Fault) -> PenstockError:
        error = of_fault(fault)
        if error.code != "UNAVAILABLE":
            return error
        return of_fault(
            unavailable(
                f"{self._address}: {fault.message}",
                retry_after_s=fault.retry_after_s,
                reason=fault.reason,
            )
        )

    def _as_call(self, run: Run) -> Call:
        return Call(
            priority=PRIORITIES[run.priority],
            run_id=run.id,
            step=run.step,
            deadline_s=self._clock.monotonic() + run.timeout_s,
        )
