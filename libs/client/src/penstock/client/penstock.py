"""The asyncio client.

Concurrent calls share one multiplexed stream to the router; with `plain=True` each is a unary call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf.message import Message
from penstock.api.common.v1 import run_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import runs_pb2
from penstock.client import requests
from penstock.client.background import check_process
from penstock.client.errors import bad_request, from_fault_at, not_open
from penstock.client.handshake import explained
from penstock.client.retries import retry_pause_s
from penstock.client.run import DEFAULT_TIMEOUT_S, NO_RUN, Priority, Run, new_run
from penstock.client.tls import tls_of
from penstock.rpc.call import PRIORITIES, Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.clock import Clock, SystemClock

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
UNARY = frozenset(name for name, rpc in ROUTER.methods_by_name.items() if not rpc.server_streaming)
CONTROL = Run("", timeout_s=5)
"""Of calls that need no model."""


class Penstock:
    """A connection to a router, opened by the first call.

    Use it as an async context manager, or call `close`. It belongs to the event loop of its first
    call.

    Every method takes `run` (run id, step, priority and timeout of each call; by default none,
    with 30 s). Methods that call a model take `options`, a CallOptions message, for
    everything else. Every failure is a PenstockError.

    Args:
        address: `host:port` or `unix:/path` of the router.
        key: API key.
        retries: further attempts after UNAVAILABLE, with jittered back-off; three take about a
            second, the time that a router needs to restart. Other errors are never retried, nor is
            a stream that has begun.
        plain: make unary calls instead of using the shared stream.
        ca: PEM file of the authorities that the router's certificate must come from, or `system`
            for those of the system; without it the connection is plaintext.
        cert, key_file: PEM files of an own certificate, for a router that asks for one.
        clock: source of time.
        rng: for the jitter of the back-off.

    Raises:
        BadRequest: address, key, retries or certificates cannot be used.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        retries: int = 3,
        plain: bool = False,
        ca: str | Path = "",
        cert: str | Path = "",
        key_file: str | Path = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        requests.check_connection(address, key, retries)
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._retries = retries
        self._plain = plain
        self._tls = tls_of(ca, cert, key_file)
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._peer: Peer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @staticmethod
    def run(
        step: str = "", priority: Priority = "normal", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Run:
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
        """Embed texts: one vector for each."""
        run = run or NO_RUN
        request = pb.EmbedRequest(
            options=requests.call_options(model, run, options),
            texts=requests.checked_texts("texts", texts),
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
        """Label texts, by `examples` (texts by label) or by the model's own head.

        Each text gets its `top_k` best labels.
        """
        run = run or NO_RUN
        request = pb.ClassifyRequest(
            options=requests.call_options(model, run, options),
            texts=requests.checked_texts("texts", texts),
            examples=requests.labelled_examples(examples),
            top_k=requests.checked_count("top_k", top_k),
        )
        answer: pb.ClassifyResponse = await self.call("Classify", request, run)
        return answer

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        top_n: int = 0,
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.RerankResponse:
        """Order documents by their relevance to a query: the best `top_n` of them, or all for 0."""
        run = run or NO_RUN
        request = pb.RerankRequest(
            options=requests.call_options(model, run, options),
            query=requests.checked_text("query", query),
            documents=requests.checked_texts("documents", documents),
            top_n=requests.checked_count("top_n", top_n),
        )
        answer: pb.RerankResponse = await self.call("Rerank", request, run)
        return answer

    async def generate(
        self,
        task: inference_pb2.GenerateTask | str,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.GenerateResponse:
        """Continue a conversation, or answer a text; return the whole answer."""
        run = run or NO_RUN
        request = pb.GenerateRequest(
            options=requests.call_options(model, run, options), task=requests.generate_task(task)
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

        A stream that breaks raises; it never ends without a receipt.
        """
        run = run or NO_RUN
        request = pb.GenerateStreamRequest(
            options=requests.call_options(model, run, options), task=requests.generate_task(task)
        )
        call = self._to_call(run)
        begun = False
        for attempt in itertools.count():
            try:
                stream: Any = self._open().stream("GenerateStream", request, call)
                async with contextlib.aclosing(stream) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except Fault as fault:
                # A stream that has begun counts as the last attempt.
                pause_s = await self._pause_s(fault, self._retries if begun else attempt, call)
            await self._clock.sleep(pause_s)

    async def infer(
        self,
        task: inference_pb2.InferTask,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.InferResponse:
        """Run a model on raw tensors."""
        run = run or NO_RUN
        request = pb.InferRequest(options=requests.call_options(model, run, options), task=task)
        answer: pb.InferResponse = await self.call("Infer", request, run)
        return answer

    async def list_models(self) -> pb.ListModelsResponse:
        """List the models that can be called."""
        answer: pb.ListModelsResponse = await self.call(
            "ListModels", pb.ListModelsRequest(), CONTROL
        )
        return answer

    async def start_run(
        self,
        limits: run_pb2.RunLimits | None = None,
        *,
        parent: Run | None = None,
        name: str = "",
        reserve: run_pb2.RunAmount | None = None,
    ) -> Run:
        """Start a run with a budget, or open a child of one with a share of it; give it as `run` to
        calls.

        Args:
            parent: the run that opens it; its step, priority and timeout are taken over.
            reserve: the last part of the limits, for calls with `options.run_final`.
        """
        own_run = parent or NO_RUN
        request = runs_pb2.StartRunRequest(
            parent_run_id=parent.id if parent is not None else "",
            name=name,
            limits=limits,
            reserve=reserve,
            idempotency_token=uuid.uuid4().hex,
        )
        answer: runs_pb2.StartRunResponse = await self.call("StartRun", request, CONTROL)
        return replace(own_run, id=answer.run.id)

    async def get_run(self, run: Run) -> runs_pb2.GetRunResponse:
        """A started run and those below it: state, limits, spent, held."""
        request = runs_pb2.GetRunRequest(run_id=run.id)
        answer: runs_pb2.GetRunResponse = await self.call("GetRun", request, CONTROL)
        return answer

    async def raise_run(self, run: Run, limits: run_pb2.RunLimits | None = None) -> None:
        """Raise the limits of a started run to what is given, and let it go on."""
        request = runs_pb2.RaiseRunRequest(run_id=run.id, limits=limits)
        await self.call("RaiseRun", request, CONTROL)

    async def end_run(self, run: Run) -> None:
        """End a started run and those below it; a child's rest goes back to its parent."""
        request = runs_pb2.EndRunRequest(run_id=run.id)
        await self.call("EndRun", request, CONTROL)

    async def cancel_run(self, run: Run) -> int:
        """Cancel all calls of a run that are in flight; return their number."""
        request = pb.CancelRunRequest(run_id=run.id)
        answer: pb.CancelRunResponse = await self.call("CancelRun", request, CONTROL)
        return answer.cancelled_calls

    async def call(self, method: str, request: Message, run: Run | None = None) -> Any:
        """Call any unary RPC of RouterService by its name; return its response message.

        The request may be sent more than once, so a SubmitJob should have an idempotency token.

        Raises:
            BadRequest: there is no such unary RPC.
        """
        if method not in UNARY:
            raise bad_request("method", f"{method!r} is not a unary RPC of {ROUTER.full_name}")
        call = self._to_call(run or NO_RUN)
        for attempt in itertools.count():
            try:
                return await self._open().call(method, request, call)
            except Fault as fault:
                pause_s = await self._pause_s(fault, attempt, call)
            await self._clock.sleep(pause_s)
        raise AssertionError("the loop above returns or raises")

    async def close(self) -> None:
        """Close the connection; calls in flight fail. Closing again does nothing."""
        self._closed = True
        peer = self._peer
        self._peer = None
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
        """The connection; the first call opens it and binds it to the running event loop."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise not_open("the client was closed")
        if self._peer is None:
            check_process()
            self._loop = loop
            self._peer = self._new_peer()
        elif loop is not self._loop:
            raise not_open(
                "the client was opened in another event loop, perhaps in an earlier asyncio.run"
            )
        return self._peer

    def _new_peer(self) -> Peer:
        if self._plain:
            channel = open_channel(self._address, self._tls)
            return UnaryPeer(channel, ROUTER, metadata=self._metadata, clock=self._clock)
        return connect(
            self._address, ROUTER, metadata=self._metadata, clock=self._clock, tls=self._tls
        )

    async def _pause_s(self, fault: Fault, attempt: int, call: Call) -> float:
        """Seconds until the next attempt.

        Raises:
            PenstockError: there is no further attempt.
        """
        if self._closed:
            raise not_open("the client was closed while the call was in flight") from None
        left_s = call.remaining_s(self._clock.monotonic())
        pause_s = retry_pause_s(fault, attempt, self._retries, left_s, self._rng)
        if pause_s is None:
            fault = await explained(fault, self._address, self._tls)
            raise from_fault_at(self._address, fault) from None
        return pause_s

    def _to_call(self, run: Run) -> Call:
        priority, ends_s = PRIORITIES[run.priority], self._clock.monotonic() + run.timeout_s
        return Call(priority=priority, run_id=run.id, step=run.step, deadline_s=ends_s)
