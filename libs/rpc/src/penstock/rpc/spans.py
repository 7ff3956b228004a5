"""What a call needs of tracing: a span around it, and a place for its receipt.

`penstock.otel` implements it.

The RPC layer depends on these two interfaces and not on OpenTelemetry, so that a client library
does not install an SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol

from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call

Value = str | int | float | bool
Attributes = Mapping[str, Value]
Own = dict[str, Value]
"""Attributes that are handed over with their ownership."""
IN_PROCESS = "in_process"
"""The kind of a client's span whose server is in the same process, and has a span of its own."""

_SERVED: ContextVar[Span | None] = ContextVar("penstock_served", default=None)
"""The span of the call that this task serves."""


class Span(Protocol):
    """A span that is open; `call` is the caller's Call with this span as parent, to be handed to
    the next hop.
    """

    @property
    def call(self) -> Call: ...

    @property
    def recorded(self) -> bool:
        """Whether attributes are worth their making: False for a span that is kept only should it
        fail or be slow.
        """

    def set(self, key: str, value: Value) -> None:
        """Set an attribute; names come from penstock.otel.attributes."""

    def fail(self, code: str, reason: str = "") -> None:
        """Say how it failed: gRPC code name and, where there is one, the stable reason.

        An exception that leaves says it too.
        """

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        """Take a call's account: counted always, written on the span where it is recorded."""

    def arrived(self) -> None:
        """Say that the call has reached its server in this process, whose span tells the rest."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tracer(Protocol):
    """Opens spans."""

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        """Open a span under the call's trace, or a new trace; use it in a `with`.

        `attributes` belong to the span from then on.
        """
        ...


class NoSpan:
    """A span that forgets what it is told."""

    recorded = False
    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def __enter__(self) -> NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, key: str, value: Value) -> None: ...

    def fail(self, code: str, reason: str = "") -> None: ...

    def receipt(self, receipt: common_pb2.Receipt) -> None: ...

    def arrived(self) -> None: ...


class SharedSpan:
    """The span of a call that is served, for whatever serves it to write on: it is neither opened
    nor closed here, and its server takes the receipt.

    Args:
        span: the server's.
        call: the call as it is handed on, which may have another priority or deadline by now.
    """

    __slots__ = ("_span", "call")

    def __init__(self, span: Span, call: Call) -> None:
        self._span = span
        self.call = call

    @property
    def recorded(self) -> bool:
        """See Span."""
        return self._span.recorded

    def __enter__(self) -> SharedSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, key: str, value: Value) -> None:
        """See Span."""
        self._span.set(key, value)

    def fail(self, code: str, reason: str = "") -> None:
        """See Span."""
        self._span.fail(code, reason)

    def receipt(self, receipt: common_pb2.Receipt) -> None: ...

    def arrived(self) -> None: ...


def serve_under(span: Span | None) -> None:
    """From now on this task serves the call of a span; None: work of its own."""
    _SERVED.set(span)


def span_of(tracer: Tracer, name: str, call: Call, attributes: Own) -> Span:
    """The span of a call in this service, to be used in a `with`: its server's, which gets the
    attributes too. So a call leaves one span in each service.

    Where no server serves just this call, as for a job or the member of a batch, it is a span of
    its own of this name.
    """
    served = _SERVED.get()
    if served is None or served.call.traceparent != call.traceparent:
        return tracer.span(name, call, attributes=attributes)
    for key, value in attributes.items():
        served.set(key, value)
    return SharedSpan(served, call)


class NoTracer:
    """Records nothing; for clients, tests and tools."""

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        return NoSpan(call)


NO_TRACER = NoTracer()
