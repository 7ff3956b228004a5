"""Calls inside one process, with the semantics of the wire.

A call is authenticated, traced, bounded by its deadline and cancelled as over an item stream. The
work runs in a context of the called service, so what the servicer sets there (the trace of a log
line) stays there; and in a task of its own, so a caller that leaves does not wait for it, unless
its RPC is one of `Endpoint.in_callers_task`, whose work ends at once. A failure arrives as it would
from another process, without the exception that caused it.

Of the call's two spans the server's is exported. The caller's would say the same, so it is timed,
and exported only where the call failed or was slow.

What differs is the copying: over a wire every message is copied. Here a message is copied unless
its RPC is one of `Endpoint.uncopied`, whose messages nobody changes once they are handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.rpc.auth import TOKEN_KEY, CallerMetadata
from penstock.rpc.call import Call
from penstock.rpc.dispatch import Dispatcher, PendingCall, Rpc, check_fits, rpcs_of
from penstock.rpc.endpoint import Endpoint, item_call
from penstock.rpc.errors import (
    Fault,
    deadline_exceeded,
    from_item_status,
    to_fault,
    to_item_status,
    unavailable,
)
from penstock.rpc.item_session import ITEM_WINDOW
from penstock.rpc.peers.callers_task import InContext, ServedCall, ServedCalls
from penstock.rpc.spans import IN_PROCESS, NO_TRACER, Span, Tracer
from penstock.service.clock import Clock, SystemClock

T = TypeVar("T")
DEFAULT_DEADLINE_S = 30.0


class LocalEndpoint:
    """An endpoint as callers in its own process reach it.

    It owns the work of their calls, and serves between `open` and `close`. Everything runs in the
    context in which it was made.

    Args:
        tracer: the called service's own.
        default_deadline_s: for calls of a public endpoint that set none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tracer: Tracer = NO_TRACER,
        clock: Clock | None = None,
        default_deadline_s: float = DEFAULT_DEADLINE_S,
    ) -> None:
        self.endpoint = endpoint
        self.dispatcher = Dispatcher(endpoint.service, endpoint.servicer, tracer)
        self.is_open = False
        self.served = ServedCalls()
        self._clock = clock or SystemClock()
        self._default_deadline_s = default_deadline_s
        self._context = contextvars.copy_context()
        self._work: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Take calls from now on."""
        self.is_open = True

    async def close(self) -> None:
        """Refuse calls, and cancel those in flight: they fail UNAVAILABLE."""
        self.is_open = False
        await self.served.end(_is_closed)
        await cancel_all(self._work)

    async def call_of(self, metadata: CallerMetadata, call: Call) -> Call:
        """The call of whoever sends this metadata: an internal endpoint believes what it says.

        Raises:
            Fault: UNAUTHENTICATED.
        """
        caller = self.endpoint.authenticate(metadata)
        if not isinstance(caller, Call):
            caller = await caller
        if not self.endpoint.public:
            return call
        return item_call(caller, call, self._clock.monotonic() + self._default_deadline_s)

    def context(self) -> contextvars.Context:
        """A fresh context for the work of one call."""
        return self._context.copy()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        context: contextvars.Context,
        ended: Callable[[asyncio.Task[T]], object],
    ) -> asyncio.Task[T]:
        """Run the work of a call in a task that ends with this endpoint; `ended` is called with it
        once it has ended.
        """

        def let_go(task: asyncio.Task[T]) -> None:
            self._work.discard(task)
            _retrieve(task)
            ended(task)

        task = asyncio.get_running_loop().create_task(work, context=context)
        self._work.add(task)
        task.add_done_callback(let_go)
        return task


class InProcessPeer:
    """Calls a service of this process. See Peer.

    Args:
        find: the endpoint, or None while it is not there; asked for each call.
        token: the internal token, for internal endpoints.
        caller: the calling service, which the process vouches for as a certificate would.
        tracer: the calling service's own.
    """

    def __init__(
        self,
        service: ServiceDescriptor,
        find: Callable[[], LocalEndpoint | None],
        *,
        token: str = "",
        clock: Clock | None = None,
        tracer: Tracer = NO_TRACER,
        metadata: tuple[tuple[str, str], ...] = (),
        caller: str = "",
    ) -> None:
        self._rpcs = rpcs_of(service)
        self._name = service.full_name
        self._find = find
        self._metadata = CallerMetadata((*metadata, *(((TOKEN_KEY, token),) if token else ())))
        self._metadata.names = frozenset({caller} if caller else ())
        self._clock = clock or SystemClock()
        self._tracer = tracer
        self._closed = False
        self._served = ServedCalls()
        self._work: set[asyncio.Task[Any]] = set()

    def presenting(self, metadata: tuple[tuple[str, str], ...]) -> InProcessPeer:
        """The same peer, with this metadata on each call; what belongs to the original stays its
        own. The process says which service calls, so no token has to be checked for that.
        """
        view = InProcessPeer.__new__(InProcessPeer)
        view.__dict__.update(self.__dict__)  # A fifth of what copy.copy takes, in each call.
        view._metadata = CallerMetadata({**self._metadata, **dict(metadata)})
        if self._metadata.names:
            view._metadata.pop(TOKEN_KEY, None)
        view._metadata.names = self._metadata.names
        return view

    @property
    def responds(self) -> bool:
        """See Peer; always true: the peer is this process."""
        return True

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind=IN_PROCESS) as span:
            try:
                left_s = self._left_s(request, span.call)
                local = self._endpoint()
                served = await local.call_of(self._metadata, span.call)
                copies = method not in local.endpoint.uncopied
                context = local.context()
                span.arrived()
                pending = context.run(
                    local.dispatcher.begin, rpc, _copy(request) if copies else request, served
                )
                response = pending.response
                if response is None and method in local.endpoint.in_callers_task:
                    with ServedCall((self._served, local.served), left_s, _time_up):
                        response = await InContext(local.dispatcher.finish(pending), context)
                elif response is None:
                    response = await self._finished(local, pending, left_s, context)
                return _copy(response) if copies else response
            except Exception as error:
                raise _as_over_a_wire(span, error) from None

    async def _finished(
        self,
        local: LocalEndpoint,
        pending: PendingCall,
        left_s: float,
        context: contextvars.Context,
    ) -> Message:
        """The response of a call that has begun; a caller who leaves cancels the work and does not
        wait for its end.
        """
        loop = asyncio.get_running_loop()
        over = loop.create_future()  # at the end of the work or of the time
        work = self._run(
            local, local.dispatcher.finish(pending), context, lambda _: _set_done(over)
        )
        timer = None if math.isinf(left_s) else loop.call_later(left_s, _set_done, over)
        with local.endpoint.opened(self._metadata, work) as opened:
            try:
                await over
            finally:
                work.cancel()
                if timer is not None:
                    timer.cancel()
        if opened is not None and opened.fault is not None:
            raise opened.fault
        if not work.done():
            raise _time_up()
        if work.cancelled() and (self._closed or not local.is_open):
            raise _is_closed()
        return work.result()

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        rpc = self._rpcs[method]
        with self._tracer.span(rpc.span, call, kind=IN_PROCESS) as span, _faults(span):
            left_s = self._left_s(request, span.call)
            local = self._endpoint()
            served = await local.call_of(self._metadata, span.call)
            chunks = _Chunks(_copy if method not in local.endpoint.uncopied else _as_it_is)
            reading = self._read(local, rpc, chunks.copy(request), served, chunks)
            span.arrived()
            work = self._run(local, reading, local.context(), _nothing)
            timer = None
            if not math.isinf(left_s):
                timer = asyncio.get_running_loop().call_later(left_s, chunks.expire, work)
            opened = local.endpoint.opened(self._metadata, work)
            try:
                with opened as open_call:
                    while (chunk := await chunks.take()) is not None:
                        yield chunk
            except Fault:
                if open_call is not None and open_call.fault is not None:
                    raise open_call.fault from None
                raise
            finally:
                work.cancel()
                if timer is not None:
                    timer.cancel()

    async def _read(
        self, local: LocalEndpoint, rpc: Rpc, request: Message, call: Call, chunks: _Chunks
    ) -> None:
        """Pass on what the servicer yields, as far ahead of the caller as a stream's window."""
        messages = local.dispatcher.act_stream(rpc, request, call)
        try:
            async for message in messages:
                await chunks.put(message)
        except asyncio.CancelledError:
            closed = self._closed or not local.is_open
            chunks.end(_is_closed() if closed else to_fault(asyncio.CancelledError()))
            raise
        except Exception as error:
            chunks.end(to_fault(error))
        else:
            chunks.end(None)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]

    def _run(
        self,
        local: LocalEndpoint,
        work: Coroutine[Any, Any, T],
        context: contextvars.Context,
        ended: Callable[[asyncio.Task[T]], object],
    ) -> asyncio.Task[T]:
        def let_go(task: asyncio.Task[T]) -> None:
            self._work.discard(task)
            ended(task)

        task = local.run(work, context, let_go)
        self._work.add(task)
        return task

    def _left_s(self, request: Message, call: Call) -> float:
        left_s = call.deadline_s - self._clock.monotonic()
        if left_s <= 0:
            raise deadline_exceeded("no time was left to send the call")
        check_fits(request.ByteSize())
        return left_s

    def _endpoint(self) -> LocalEndpoint:
        if self._closed:
            raise _is_closed()
        local = self._find()
        if local is None or not local.is_open:
            raise unavailable(f"{self._name} is not serving in this process")
        return local

    async def close(self) -> None:
        """See Peer."""
        self._closed = True
        await self._served.end(_is_closed)
        await cancel_all(self._work)


class _Chunks:
    """What a stream has yielded and its caller has not taken; the last is its end.

    The servicer owns a message until it is put, the caller from the moment it is taken.
    """

    def __init__(self, copy: Callable[[Message], Message]) -> None:
        self.copy = copy
        self._waiting: asyncio.Queue[Message | Fault | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._ended = False

    async def put(self, message: Message) -> None:
        """Add a message, and wait while the caller is a window behind."""
        self._waiting.put_nowait(self.copy(message))
        while self._waiting.qsize() > ITEM_WINDOW:
            self._room.clear()
            await self._room.wait()

    def end(self, fault: Fault | None) -> None:
        """Say how it ended, None for well; only the first end counts."""
        if not self._ended:
            self._ended = True
            self._waiting.put_nowait(fault)

    def expire(self, work: asyncio.Task[None]) -> None:
        """End it because its time is up."""
        self.end(_time_up())
        work.cancel()

    async def take(self) -> Message | None:
        """The next message, None at the end; raises the fault that it ended with."""
        chunk = await self._waiting.get()
        self._room.set()
        if isinstance(chunk, Fault):
            raise chunk
        return chunk


@contextlib.contextmanager
def _faults(span: Span) -> Iterator[None]:
    """Failures as they come over a wire, written on the caller's span."""
    try:
        yield
    except Exception as error:
        raise _as_over_a_wire(span, error) from None


def _as_over_a_wire(span: Span, error: Exception) -> Fault:
    """A failure as it comes over a wire, written on the caller's span."""
    fault = from_item_status(to_item_status(error))
    span.fail(fault.code.name, fault.reason)
    return fault


def _time_up() -> Fault:
    return deadline_exceeded("the time was up before the answer was there")


def _is_closed() -> Fault:
    return unavailable("the connection was closed")


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _nothing(_: object) -> None:
    """What is called at the end of work whose result nobody waits for."""


async def cancel_all(work: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    tasks = list(work)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of the failure of work whose caller may have left, so that nobody warns of it."""
    if not task.cancelled():
        task.exception()


def _as_it_is(message: Message) -> Message:
    return message


def _copy(message: Message) -> Message:
    fresh = type(message)()
    fresh.CopyFrom(message)
    return fresh
