"""What a call needs of tracing: a span around it, and a place for its receipt.

`penstock.otel` implements it.

The RPC layer depends on these two interfaces and not on OpenTelemetry, so that a client library
does not install an SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class NoTracer:
    """Records nothing; for clients, tests and tools."""

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        return NoSpan(call)


NO_TRACER = NoTracer()
