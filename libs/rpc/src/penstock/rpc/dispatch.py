"""The RPCs of a service as a table: names, message classes, and the servicer's methods.

Shared by every transport.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, invalid, to_fault
from penstock.rpc.spans import Span, Tracer, serve_under
from penstock.service.logs import TRACE

T = TypeVar("T")

EXCHANGE = "Exchange"
"""Name of the RPC that carries items of the others; this library serves it, no servicer does."""

MAX_MESSAGE_BYTES = 4 << 20
"""Bytes that a server takes in one message."""

FRAME_BYTES = 1 << 20
"""Bytes in one frame at most, unless it holds a single item: many items of one stream must not
exceed one message.
"""

ONE_MESSAGE_BYTES = MAX_MESSAGE_BYTES - (64 << 10)
"""Bytes of a request that goes in one message; its context travels beside it."""

MAX_REQUEST_BYTES = 40 << 20
"""Bytes of one request at most. One that exceeds a message goes in parts, which only services may
send: an HTTP body of 32 MiB, translated, or a smaller one beside its translation.
"""

MAX_NAME_CHARACTERS = 128
"""Characters of a run's or a step's name that a span carries."""


def check_fits(request_bytes: int, most: int = MAX_REQUEST_BYTES) -> None:
    """Refuse a request that is too large before it is sent, or before all of it has come.

    Raises:
        Fault: INVALID_ARGUMENT.
    """
    if request_bytes > most:
        raise invalid(
            "",
            f"the request has {request_bytes} bytes; at most {most} fit in one: ask for fewer or "
            "smaller inputs at once",
        )


def split_to_fit(items: Sequence[T], bytes_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The items as they are, unless one message cannot hold them: then in as few parts as that
    takes, each of one item at least.
    """
    first, size = 0, 0
    for number, item in enumerate(items):
        adds = bytes_of(item)
        if size + adds > ONE_MESSAGE_BYTES and number > first:
            yield items[first:number]
            first, size = number, 0
        size += adds
    yield items[first:]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One unary or server-streaming RPC: `path` is `/package.Service/Method`, `span` the same
    without the first slash.
    """

    name: str
    path: str
    span: str
    request: type[Message]
    response: type[Message]
    streams: bool
    has_receipt: bool = False
    """Whether the response carries a receipt, which telemetry counts."""
    names_run: bool = False
    """Whether the request's `options` may name an agent run, to which span and cost then belong."""

    def of_run(self, request: Any, call: Call) -> Call:
        """The call with the run and step that the request names; overlong names are cut here and
        refused by the servicer.
        """
        if not self.names_run:
            return call
        options = request.options
        run_id, step = (
            options.run_id[:MAX_NAME_CHARACTERS] or call.run_id,
            options.step[:MAX_NAME_CHARACTERS] or call.step,
        )
        if run_id == call.run_id and step == call.step:
            return call
        # Three times as fast as _replace.
        return Call(
            call.principal,
            call.priority,
            run_id,
            step,
            call.deadline_s,
            call.traceparent,
            call.tracestate,
            call.caller,
            call.is_translated,
        )

    def parse(self, payload: bytes) -> Message:
        """The request message.

        Raises:
            Fault: INVALID_ARGUMENT where the bytes are not one.
        """
        try:
            return self.request.FromString(payload)
        except DecodeError:
            raise invalid("", f"the request is not a {self.request.DESCRIPTOR.full_name}") from None


def rpcs_of(service: ServiceDescriptor) -> dict[str, Rpc]:
    """Every RPC of the service but `Exchange`, by name."""
    return {
        method.name: _rpc(service, method) for method in service.methods if method.name != EXCHANGE
    }


def _rpc(service: ServiceDescriptor, method: MethodDescriptor) -> Rpc:
    span = f"{service.full_name}/{method.name}"
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    field = method.output_type.fields_by_name.get("receipt")
    receipt = field is not None and field.message_type is common_pb2.Receipt.DESCRIPTOR
    options = method.input_type.fields_by_name.get("options")
    names_run = (
        options is not None
        and options.message_type is not None
        and "run_id" in options.message_type.fields_by_name
    )
    return Rpc(
        method.name,
        f"/{span}",
        span,
        request,
        response,
        bool(method.server_streaming),
        receipt,
        names_run,
    )


Continuation = Callable[[], Awaitable[Message]]
"""What a plain method returns instead of its response when it has to wait for something: called
once, and awaited.
"""


class PendingCall:
    """A unary RPC that has begun.

    Owner: whoever began it, who must `finish` it where `response` is None.
    """

    __slots__ = ("continuation", "response", "rpc", "span")

    def __init__(
        self,
        rpc: Rpc,
        span: Span,
        response: Message | None,
        continuation: Continuation | None = None,
    ) -> None:
        self.rpc = rpc
        self.span = span
        self.response = response
        self.continuation = continuation


class Dispatcher:
    """Runs a servicer's methods: parse, span, act, serialise.

    One instance serves every transport of an endpoint.

    A unary method is a coroutine function, or a plain function that returns its response where
    nothing has to be waited for, and otherwise a `Continuation`: an answer from memory then costs
    no task and no timer.
    """

    def __init__(self, service: ServiceDescriptor, servicer: object, tracer: Tracer) -> None:
        self.service = service
        self.rpcs = rpcs_of(service)
        missing = [name for name in self.rpcs if not hasattr(servicer, name)]
        if missing:
            raise TypeError(
                f"{type(servicer).__name__} lacks {', '.join(missing)} of {service.full_name}"
            )
        self._methods: dict[str, Callable[[Any, Call], Any]] = {
            name: _plain(getattr(servicer, name)) if not rpc.streams else getattr(servicer, name)
            for name, rpc in self.rpcs.items()
        }
        self._tracer = tracer

    def begin(self, rpc: Rpc, request: Message, call: Call) -> PendingCall:
        """Begin a unary RPC; its response is there already where nothing had to be waited for.

        Raises Fault.
        """
        span = self._tracer.span(rpc.span, rpc.of_run(request, call), kind="server")
        TRACE.set(span.call.traceparent)
        serve_under(span)
        try:
            returned: Any = self._methods[rpc.name](request, span.call)
            if not isinstance(returned, Message):
                return PendingCall(rpc, span, None, returned)
            if rpc.has_receipt:
                span.receipt(cast(Any, returned).receipt)
        except BaseException as error:
            with span:
                raise _recorded(span, error) from None
        with span:
            return PendingCall(rpc, span, returned)

    async def finish(self, pending: PendingCall) -> Message:
        """Wait for the response of an RPC that has begun without one; raises Fault."""
        assert pending.continuation is not None
        with pending.span as span:
            try:
                response: Any = await pending.continuation()
                if pending.rpc.has_receipt:
                    span.receipt(response.receipt)
                return cast(Message, response)
            except BaseException as error:
                raise _recorded(span, error) from None

    async def act(self, rpc: Rpc, request: Message, call: Call) -> Message:
        """Run a unary RPC on messages; raises Fault."""
        pending = self.begin(rpc, request, call)
        return pending.response if pending.response is not None else await self.finish(pending)

    async def stream(self, rpc: Rpc, payload: bytes, call: Call) -> AsyncIterator[bytes]:
        """Run a server-streaming RPC on serialised messages; raises Fault."""
        messages = self.act_stream(rpc, rpc.parse(payload), call)
        try:
            async for message in messages:
                yield message.SerializeToString()
        finally:
            await messages.aclose()  # type: ignore[attr-defined]

    async def act_stream(self, rpc: Rpc, request: Message, call: Call) -> AsyncIterator[Message]:
        """Run a server-streaming RPC on messages; raises Fault."""
        with self._tracer.span(rpc.span, rpc.of_run(request, call), kind="server") as span:
            TRACE.set(span.call.traceparent)
            serve_under(span)
            messages = self._methods[rpc.name](request, span.call)
            try:
                async for message in messages:
                    if rpc.has_receipt and message.HasField("receipt"):
                        span.receipt(message.receipt)
                    yield message
            except GeneratorExit:
                raise
            except BaseException as error:
                raise _recorded(span, error) from None
            finally:
                await messages.aclose()


def _plain(method: Callable[[Any, Call], Any]) -> Callable[[Any, Call], Any]:
    """A unary method as a plain function: a coroutine function's coroutine is made only when it is
    awaited, so none is left behind.
    """
    if not inspect.iscoroutinefunction(method):
        return method
    return lambda request, call: functools.partial(method, request, call)


def _recorded(span: Any, error: BaseException) -> BaseException:
    """Record the failure on the span and return what is raised on: cancellation stays itself, all
    else becomes a Fault.
    """
    fault: Fault = to_fault(error)
    span.fail(fault.code.name, fault.reason)
    return fault if isinstance(error, Exception) else error
