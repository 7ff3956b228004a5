"""Spans as plain values, read out of OTLP messages, and the tree they make.

No storing, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as names

Value = str | int | float | bool
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True)
class Source:
    """Who recorded: `service.name` and `service.instance.id` of the resource, and the machine where
    the sender tells it.
    """

    service: str
    instance: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class SpanView:
    """One operation; times in Unix nanoseconds, `error` a code's name or empty."""

    span_id: str
    parent_id: str
    source: Source
    name: str
    kind: str
    start_ns: int
    end_ns: int
    error: str
    attributes: Mapping[str, Value]

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


def plain(value: AnyValue) -> Value:
    """An OTLP value; lists and maps as text."""
    which = value.WhichOneof("value")
    if which is None:
        return ""
    held = getattr(value, which)
    return held if isinstance(held, str | int | float | bool) else str(held)


def plain_attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """OTLP attributes as a dictionary."""
    return {pair.key: plain(pair.value) for pair in pairs}


def read_span(span: trace_pb2.Span, source: Source) -> SpanView:
    """Read one OTLP span."""
    attributes = plain_attributes(span.attributes)
    error = ""
    if span.status.code == ERROR:
        status = str(attributes.get(names.RPC_STATUS, ""))
        error = status if status not in ("", "OK") else "ERROR"
    return SpanView(
        span.span_id.hex(),
        span.parent_span_id.hex(),
        source,
        span.name,
        KINDS[span.kind] if span.kind < len(KINDS) else "internal",
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        error,
        attributes,
    )


class SpanTree:
    """Spans of one trace with their children, each list in order of start.

    A span whose parent is not here is a root.
    """

    def __init__(self, spans: Sequence[SpanView]) -> None:
        self.spans = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
        self.by_id = {span.span_id: span for span in self.spans}
        self.children: dict[str, list[SpanView]] = {}
        roots = []
        for span in self.spans:
            if span.parent_id in self.by_id and span.parent_id != span.span_id:
                self.children.setdefault(span.parent_id, []).append(span)
            else:
                roots.append(span)
        self.roots = roots or self.spans[:1]
        self.root = min(
            self.roots, key=lambda span: (bool(span.parent_id), span.start_ns, -span.end_ns)
        )
        """The span that stands for the trace: one without a parent before one whose parent is
        missing, then the earliest.
        """

    def of(self, span: SpanView) -> list[SpanView]:
        """The children of a span."""
        return self.children.get(span.span_id, [])

    def in_order(self) -> list[tuple[SpanView, int]]:
        """Every span with its depth, as a waterfall shows them: parents first, then by start."""
        others = [root for root in self.roots if root is not self.root]
        rows: list[tuple[SpanView, int]] = []
        stack = [(span, 0) for span in [*reversed(others), self.root]]
        seen: set[str] = set()
        while stack:
            span, depth = stack.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            rows.append((span, depth))
            stack.extend((child, depth + 1) for child in reversed(self.of(span)))
        return rows


def is_waited_on(parent: SpanView, child: SpanView) -> bool:
    """Whether the parent waited for the child.

    It did not when the child says so, when it was cancelled and the parent was not (the loser of a
    hedge), when it is a consumer's work, or when it outlives a parent of the same process: whoever
    awaits a call cannot end before it.
    """
    said = child.attributes.get(names.WAITED_ON)
    if said is not None:
        return said not in (False, "false")
    if child.kind == "consumer" or (child.error == "CANCELLED" and parent.error != "CANCELLED"):
        return False
    return child.source != parent.source or child.end_ns <= parent.end_ns + child.duration_ns // 100


def error_origin(tree: SpanTree) -> SpanView | None:
    """The span in which the root's error began: from the root down, the child that failed first;
    None when the root did not fail.
    """
    span, origin = tree.root, None
    seen: set[str] = set()
    while span.error and span.span_id not in seen:
        origin = span
        seen.add(span.span_id)
        failed = [child for child in tree.of(span) if child.error and is_waited_on(span, child)]
        if not failed:
            break
        same = [child for child in failed if child.error == span.error]
        span = min(same or failed, key=lambda child: child.end_ns)
    return origin
