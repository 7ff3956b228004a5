"""The two kinds of open span: one that is exported when it ends, and one that is only timed; and
the identifiers of W3C Trace Context.

A trace is sampled or not. Spans of a sampled trace are `RecordedSpan`s: each has an identifier,
collects attributes and makes a new Call whose `traceparent` names it. Spans of a trace that is not
sampled are `UnrecordedSpan`s: they cost about a microsecond, hand the caller's Call on unchanged,
and are exported only when they fail or are slow.

Positions in a W3C `traceparent`, `00-<trace id>-<span id>-<flags>`: the trace identifier stands at
3 to 35, the span identifier at 36 to 52.
"""

from __future__ import annotations

import random
import re
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.otel.background import background_kind
from penstock.otel.counts import receipt_attributes
from penstock.otel.recorder import EndedSpan, Recorder
from penstock.rpc.call import Call
from penstock.rpc.spans import Own, Value

if TYPE_CHECKING:
    from penstock.api.common.v1 import common_pb2

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACEPARENT_LENGTH = 55
SAMPLED_LAST_DIGITS = frozenset("13579bdf")
"""Last digits of a traceparent whose flags have the sampled bit set."""

_NON_ZERO_IDS = 1 << 64 | 1
"""Bits that make neither a trace identifier (upper 128 bits) nor a span identifier zero."""
NOT_FAILED = ("", "CANCELLED", "DEADLINE_EXCEEDED")
"""Codes with which background work ends in its ordinary course."""
NEW_TRACE = "-"
"""As an unrecorded span's parent: it is the first of a new trace, which has no parent."""


def is_valid(traceparent: str) -> bool:
    """Whether this is a traceparent of version 00 whose identifiers are not all zero."""
    return TRACEPARENT.fullmatch(traceparent) is not None


def is_sampled(traceparent: str) -> bool:
    """Whether a valid traceparent has the sampled flag."""
    return traceparent[-1] in SAMPLED_LAST_DIGITS


def format_traceparent(trace_id: int, span_id: int, sampled: bool) -> str:
    """A traceparent of version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-0{int(sampled)}"


def new_trace_id(rng: random.Random) -> str:
    """A trace identifier: 32 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(128) or 1:032x}"


def new_span_id(rng: random.Random) -> str:
    """A span identifier: 16 hexadecimal digits, not all zero."""
    return f"{rng.getrandbits(64) or 1:016x}"


def new_unsampled_traceparent(rng: random.Random) -> str:
    """The traceparent of a new trace that is not sampled.

    Both identifiers come from one draw, because most traces in production are of this kind.
    """
    digits = f"{rng.getrandbits(192) | _NON_ZERO_IDS:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00"


class _OpenSpan:
    """What both kinds of span hold."""

    __slots__ = (
        "_arrived",
        "_attributes",
        "_code",
        "_kind",
        "_name",
        "_parent_id",
        "_reason",
        "_recorder",
        "_start_ns",
        "call",
    )

    _code: str
    _reason: str
    _arrived: bool

    def arrived(self) -> None:
        """See `penstock.rpc.spans.Span`."""
        self._arrived = True

    def fail(self, code: str, reason: str = "") -> None:
        """See `penstock.rpc.spans.Span`."""
        self._code = code
        self._reason = reason

    def __enter__(self) -> Self:
        return self


class RecordedSpan(_OpenSpan):
    """A span of a sampled trace: it is exported when it ends.

    Args:
        recorder: takes the span when it ends.
        name: such as `penstock.api.router.v1.RouterService/Embed`.
        kind: `internal`, `server` or `client`.
        call: the call it belongs to, with the parent's `traceparent`.
        attributes: owned by the span from now on.
        trace_id: given for the first span of a trace in this process; else it is the parent's.
        parent_id: of that first span, when its parent is in another process.
    """

    __slots__ = ()
    recorded = True

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        kind: str,
        call: Call,
        attributes: Own | None,
        trace_id: str = "",
        parent_id: str = "",
    ) -> None:
        parent = call.traceparent
        self._recorder = recorder
        self._name = name
        self._kind = kind
        self._attributes = attributes if attributes is not None else {}
        self._code = ""
        self._reason = ""
        self._parent_id = parent_id if trace_id else parent[36:52]
        self.call = with_traceparent(
            call, f"00-{trace_id or parent[3:35]}-{new_span_id(recorder.rng)}-01"
        )
        self._start_ns = time.perf_counter_ns()

    def set(self, key: str, value: Value) -> None:
        """See `penstock.rpc.spans.Span`."""
        self._attributes[key] = value

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        """See `penstock.rpc.spans.Span`."""
        self._recorder.count_receipt(self.call, receipt)
        self._attributes.update(receipt_attributes(receipt))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = grpc_code_name(error)
        recorder = self._recorder
        own = self.call.traceparent
        recorder.durations.add(self._name, self._kind, self._code, end_ns - self._start_ns)
        recorder.record(
            EndedSpan(
                own[3:35],
                own[36:52],
                self._parent_id,
                self._name,
                self._kind,
                self._start_ns,
                end_ns,
                self._code,
                self._reason,
                "",
                self._attributes,
                self.call,
            )
        )


class UnrecordedSpan(_OpenSpan):
    """A span of a trace that is not sampled: it is timed, and exported only when it fails or is
    slow.

    Args:
        recorder: counts the span, and takes it when it is exported after all.
        name: such as `penstock.api.router.v1.RouterService/Embed`.
        kind: `internal`, `server` or `client`.
        call: the call it belongs to, handed on as it is.
        attributes: owned by the span from now on.
        parent_id: only for the first span of a trace in this process, whose identifier stands in
            `call.traceparent`: its parent in another process, or `NEW_TRACE`.
    """

    __slots__ = ()
    recorded = False

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        kind: str,
        call: Call,
        attributes: Own | None,
        parent_id: str = "",
    ) -> None:
        self._recorder = recorder
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._parent_id = parent_id
        self._code = ""
        self._reason = ""
        self._arrived = False
        self.call = call
        self._start_ns = time.perf_counter_ns()

    def set(self, key: str, value: Value) -> None:
        """See `penstock.rpc.spans.Span`."""
        if self._attributes is None:
            self._attributes = {}
        self._attributes[key] = value

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        """See `penstock.rpc.spans.Span`."""
        self._recorder.count_receipt(self.call, receipt)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = grpc_code_name(error)
        recorder = self._recorder
        duration_ns = end_ns - self._start_ns
        recorder.durations.add(self._name, self._kind, self._code, duration_ns)
        is_slow = duration_ns > recorder.slow_ns
        if (self._code or is_slow) and not self._arrived:
            if background_kind(self._name) and self._code in NOT_FAILED:
                return  # a long poll that waited, or was given up, is no slow or failed request
            recorder.record(self._ended(end_ns))

    def _ended(self, end_ns: int) -> EndedSpan:
        """This span for export.

        Only the first span of a trace in this process has an identifier of its own; any other gets
        one now, and that first span as its parent.
        """
        own = self.call.traceparent
        if self._parent_id:
            span_id = own[36:52]
            parent_id = "" if self._parent_id == NEW_TRACE else self._parent_id
        else:
            span_id = new_span_id(self._recorder.rng)
            parent_id = own[36:52]
        return EndedSpan(
            own[3:35],
            span_id,
            parent_id,
            self._name,
            self._kind,
            self._start_ns,
            end_ns,
            self._code,
            self._reason,
            "error" if self._code else "slow",
            self._attributes,
            self.call,
        )


def with_traceparent(call: Call, traceparent: str) -> Call:
    """The same call under another span."""
    return Call(
        call.principal,
        call.priority,
        call.run_id,
        call.step,
        call.deadline_s,
        traceparent,
        call.tracestate,
        call.caller,
        call.is_translated,
    )


def grpc_code_name(error: BaseException) -> str:
    """The name of the gRPC code that an exception leaving a span stands for.

    `INTERNAL` for an exception without a code. Nothing of the exception's text is recorded.
    """
    name = type(error).__name__
    if name in ("CancelledError", "GeneratorExit"):
        return "CANCELLED"
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED"
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return str(getattr(code, "name", "INTERNAL"))
