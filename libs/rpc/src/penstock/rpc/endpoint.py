"""One service on the wire: bytes in, authenticated, dispatched, bytes or a status out."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status
from penstock.api.common.v1 import common_pb2
from penstock.rpc.auth import Authenticator, CallerMetadata
from penstock.rpc.call import NORMAL, Call
from penstock.rpc.caller_limits import (
    DEFAULT_LIMITS,
    UNLIMITED,
    CallerLimits,
    Callers,
    CallerShare,
)
from penstock.rpc.dispatch import EXCHANGE, Dispatcher, Rpc
from penstock.rpc.errors import (
    Fault,
    deadline_exceeded,
    exhausted,
    invalid,
    released,
    to_rpc_status,
)
from penstock.rpc.frame_connection import FrameConnection
from penstock.rpc.frame_port import ServedFrames
from penstock.rpc.item_session import Session
from penstock.rpc.open_calls import OpenCall, OpenCalls
from penstock.rpc.request_parts import check_share, declared_bytes, rest_of
from penstock.rpc.slow_readers import WatchedWriter
from penstock.rpc.spans import Tracer
from penstock.service.clock import Clock

STREAM_AGE_JITTER = 0.2
"""Share of a stream's age by which it is longer or shorter at most."""


@dataclass(frozen=True)
class Endpoint:
    """A service that is served."""

    service: ServiceDescriptor
    servicer: object
    """Has the RPCs as methods `(request, call)`."""
    authenticate: Authenticator
    public: bool = False
    """Whether an item's context says only what a caller may say: run, step, priority, time left and
    trace. The context of an internal endpoint is believed.
    """
    uncopied: frozenset[str] = frozenset()
    """RPCs whose messages callers in the same process pass without a copy: nobody changes a request
    or a response once it is handed over, so either side may keep it.
    """
    in_callers_task: frozenset[str] = frozenset()
    """Unary RPCs that a caller in the same process serves in its own task. Their work ends at once
    when it is cancelled: a caller who leaves waits for its end.
    """
    limits: CallerLimits = DEFAULT_LIMITS
    """Of each caller of a public endpoint."""
    open_calls: OpenCalls | None = None
    """Knows the calls in flight of a public endpoint; None: nobody ends them."""

    def opened(
        self, metadata: CallerMetadata, task: asyncio.Task[Any] | None = None
    ) -> AbstractContextManager[OpenCall | None]:
        """Count a call among those in flight; see OpenCalls."""
        if self.open_calls is None:
            return nullcontext()
        return self.open_calls.enter(metadata, task)


def item_call(caller: Call, said: Call, default_deadline_s: float) -> Call:
    """The call of an item at a public endpoint: only what a caller may say is taken from it.

    Args:
        caller: who it is, as authenticated.
        said: what came with the item.
        default_deadline_s: its deadline where it says none.
    """
    return Call(
        caller.principal,
        said.priority,
        said.run_id,
        said.step,
        default_deadline_s if math.isinf(said.deadline_s) else said.deadline_s,
        said.traceparent,
        said.tracestate,
        is_translated=caller.is_translated,
    )


class EndpointHandlers:
    """The grpc.aio handlers of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        tracer: Tracer,
        clock: Clock,
        default_deadline_s: float,
        stream_age_s: float = 0.0,
    ) -> None:
        """Make them.

        Args:
            default_deadline_s: of calls that set none.
            stream_age_s: about so long after its begin an item stream asks its peer to go on over
                another one; 0: never.
        """
        self._endpoint = endpoint
        self._dispatcher = Dispatcher(endpoint.service, endpoint.servicer, tracer)
        self._clock = clock
        self._default_deadline_s = default_deadline_s
        self._stream_age_s = stream_age_s
        self._sessions: set[Session] = set()
        self._callers = Callers(endpoint.limits) if endpoint.public else None

    def drain(self) -> None:
        """Let every item stream end once its items are answered: a stream has no end of its own."""
        for session in self._sessions:
            session.drain()

    @property
    def has_local_streams(self) -> bool:
        """Whether item streams may come over frames: those of our own services do."""
        return not self._endpoint.public and EXCHANGE in self._endpoint.service.methods_by_name

    @property
    def name(self) -> str:
        """The service's full name."""
        return self._endpoint.service.full_name

    def generic(self) -> grpc.GenericRpcHandler:
        """All handlers of the service, ready to be added to a server."""
        handlers = {name: self._handler(rpc) for name, rpc in self._dispatcher.rpcs.items()}
        exchange = self._endpoint.service.methods_by_name.get(EXCHANGE)
        if exchange is not None:
            frame_in = GetMessageClass(exchange.input_type)
            frame_out = GetMessageClass(exchange.output_type)
            handlers[EXCHANGE] = grpc.stream_stream_rpc_method_handler(
                self._exchange(frame_out), frame_in.FromString, frame_out.SerializeToString
            )
        return grpc.method_handlers_generic_handler(self._endpoint.service.full_name, handlers)

    def _handler(self, rpc: Rpc) -> grpc.RpcMethodHandler:
        """Handlers that read their one message themselves: how much a caller may make this process
        receive at once is decided before it is received.
        """
        if rpc.streams:
            return grpc.stream_stream_rpc_method_handler(self._stream(rpc))
        return grpc.stream_unary_rpc_method_handler(self._unary(rpc))

    def _unary(self, rpc: Rpc) -> Callable[[Any, Any], Any]:
        async def serve(_: Any, context: Any) -> bytes:
            answer = await self._answer(rpc, context)
            return answer if isinstance(answer, bytes) else await _refuse(context, answer)

        return serve

    async def _answer(self, rpc: Rpc, context: Any) -> bytes | Fault:
        """The answer of a unary RPC. What is refused is refused outside of this: whatever raises
        that keeps this frame, and with it the request, alive.
        """
        share, size = UNLIMITED, None
        try:
            metadata = received_metadata(context)
            with self._endpoint.opened(metadata):
                call = self._timed(await self._caller(metadata), context)
                share = self._join(call)
                payload = await self._receive(context, metadata, share)
                size = len(payload)
                pending = self._dispatcher.begin(rpc, rpc.parse(payload), call)
                del payload  # is not kept while the answer is waited for
                response = pending.response
                if response is None:
                    response = await self._dispatcher.finish(pending)
                return response.SerializeToString()
        except Exception as error:
            return released(error)
        finally:
            self._leave(share, size)

    def _stream(self, rpc: Rpc) -> Callable[[Any, Any], Any]:
        async def serve(_: Any, context: Any) -> None:
            failed: Fault | None = None
            slow_s = self._endpoint.limits.slow_reader_s
            writer = WatchedWriter(context, slow_s)
            try:
                async with aclosing(self._pieces(rpc, context)) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        if isinstance(piece, Fault):
                            failed = piece
                            break
                        await writer.write(piece)
            except asyncio.CancelledError:
                if not writer.cancelled():
                    raise
                failed = exhausted(f"the stream is cut: nothing was taken for {slow_s:g} s")
            finally:
                writer.close()
            if failed is not None:
                await _refuse(context, failed)

        return serve

    async def _pieces(self, rpc: Rpc, context: Any) -> AsyncIterator[bytes | Fault]:
        """The pieces of a server-streaming RPC's answer, the last one a Fault where it failed, as
        in `_answer`.
        """
        share, size = UNLIMITED, None
        try:
            metadata = received_metadata(context)
            with self._endpoint.opened(metadata):
                call = self._timed(await self._caller(metadata), context)
                share = self._join(call)
                payload = await self._receive(context, metadata, share)
                size = len(payload)
                chunks = self._dispatcher.stream(rpc, payload, call)
                async with aclosing(chunks) as open_chunks:  # type: ignore[type-var]
                    async for chunk in open_chunks:
                        yield chunk
        except Exception as error:
            yield released(error)
        finally:
            self._leave(share, size)

    def _exchange(self, frame: Any) -> Callable[[Any, Any], Any]:
        async def serve(_: Any, context: Any) -> None:
            try:
                await self._serve_items(frame, received_metadata(context), context)
                return
            except Fault as fault:
                failed = released(fault)
            await _refuse(context, failed)

        return serve

    async def exchange(self, metadata: CallerMetadata, connection: FrameConnection) -> None:
        """Serve an item stream that came over frames, to its end.

        Raises:
            Fault: why it is refused or given up.
        """
        method = self._endpoint.service.methods_by_name[EXCHANGE]
        stream = ServedFrames(connection, GetMessageClass(method.input_type).FromString)
        await self._serve_items(GetMessageClass(method.output_type), metadata, stream)

    async def _serve_items(self, frame: Any, metadata: CallerMetadata, stream: Any) -> None:
        """Serve one item stream, gRPC's or over frames. Raises Fault."""
        share = UNLIMITED
        try:
            caller = await self._caller(metadata)
            share = self._join(caller)
            with self._endpoint.opened(metadata), share.stream():
                item_call = self._item_call(metadata)
                session = Session(self._dispatcher, frame, self._clock, item_call, share)
                await self._run(session, stream)
        finally:
            self._leave(share, None)

    async def _run(self, session: Session, context: Any) -> None:
        self._sessions.add(session)
        moves = self._move_later(session)
        try:
            await session.run(context, grpc.aio.EOF)
        finally:
            self._sessions.discard(session)
            if moves is not None:
                moves.cancel()

    def _move_later(self, session: Session) -> asyncio.TimerHandle | None:
        """Let a stream's peer go on over another one in time; streams that began together do so at
        different times.
        """
        if not self._stream_age_s:
            return None
        age_s = self._stream_age_s * random.uniform(1 - STREAM_AGE_JITTER, 1 + STREAM_AGE_JITTER)
        return asyncio.get_running_loop().call_later(age_s, session.move)

    def _join(self, call: Call) -> CallerShare:
        """The caller's share, which the caller of this must `_leave`. A service that calls in the
        name of others bounds them itself.
        """
        if self._callers is None or call.is_translated:
            return UNLIMITED
        return self._callers.join(call.principal.key_id or call.principal.organisation)

    def _leave(self, share: CallerShare, request_bytes: int | None) -> None:
        """Give up a share, and the request that was counted in it, None for none."""
        if request_bytes is not None:
            share.end(request_bytes)
        if self._callers is not None and share is not UNLIMITED:
            self._callers.leave(share)

    @staticmethod
    async def _receive(context: Any, metadata: CallerMetadata, share: CallerShare) -> bytes:
        """The request of a plain RPC, counted in its caller's share: one message, or all its parts.

        Raises:
            Fault: RESOURCE_EXHAUSTED.
        """
        total = declared_bytes(metadata)
        check_share(total, share)
        async with share.receiving:
            payload = await context.read()
            if payload is grpc.aio.EOF:
                raise invalid("", "no request message came")
            received: bytes = payload
            if total:
                received = await rest_of(received, total, context.read)
            share.begin(len(received))
            return received

    def _item_call(
        self, metadata: CallerMetadata
    ) -> Callable[[common_pb2.CallContext, float], Call]:
        """Makes an item's call. At a public endpoint the stream's caller is authenticated again for
        each item: what it was given when the stream was opened may have been taken from it.
        """
        if not self._endpoint.public:
            return Call.from_context
        default_s = self._default_deadline_s
        authenticate = self._endpoint.authenticate

        def of_caller(context: common_pb2.CallContext, now: float) -> Call:
            said = Call.from_context(context, now)
            if not context.remaining_ms:
                said = said._replace(deadline_s=math.inf)
            again = authenticate(metadata)
            if not isinstance(again, Call):
                raise TypeError("a public endpoint needs an authenticator that does not wait")
            return item_call(again, said, now + default_s)

        return of_caller

    async def _caller(self, metadata: CallerMetadata) -> Call:
        caller = self._endpoint.authenticate(metadata)
        return caller if isinstance(caller, Call) else await caller

    def _timed(self, call: Call, context: Any) -> Call:
        """The Call of a plain RPC: its deadline is the earlier of gRPC's own and the context's, or
        the default.
        """
        now = self._clock.monotonic()
        left_s = context.time_remaining()
        deadline_s = min(call.deadline_s, math.inf if left_s is None else now + left_s)
        if math.isinf(deadline_s):
            deadline_s = now + self._default_deadline_s
        if deadline_s <= now:
            raise deadline_exceeded("no time was left when the call arrived")
        return Call(
            call.principal,
            call.priority or NORMAL,
            call.run_id,
            call.step,
            deadline_s,
            call.traceparent,
            call.tracestate,
            call.caller,
            call.is_translated,
        )


def received_metadata(context: Any) -> CallerMetadata:
    """What came with a call over gRPC. Raises UNAUTHENTICATED where it names two callers."""
    return CallerMetadata.received(context.invocation_metadata() or (), _certificate_names(context))


def _certificate_names(context: Any) -> frozenset[str]:
    """The names of the caller's certificate; none without one, or without TLS."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return frozenset(name.decode("utf-8", "replace") for name in names)


async def _refuse(context: Any, fault: Fault) -> NoReturn:
    """End a call with a fault."""
    status = rpc_status.to_status(to_rpc_status(fault))
    context.set_trailing_metadata(status.trailing_metadata)
    await context.abort(fault.code, fault.message, status.trailing_metadata)
    raise fault
