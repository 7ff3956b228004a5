"""Spans as plain values, read from OTLP messages, and the tree that the spans of a trace make."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as semconv
from penstock.otel import background
from penstock.otel.background import background_kind, background_root_kind

Value = str | int | float | bool
PLAIN_FIELDS = ("int_value", "double_value", "bool_value", "string_value")
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
"""By OTLP's number; 0 is unspecified."""


NEVER_AWAITED = (
    background.LONG_POLL,
    background.REGISTRATION,
    background.EXPORT,
    background.PROBE,
    background.FOLLOW_UP,
)
"""Kinds of background work that no answer waits for."""

FAILED = trace_pb2.Status.STATUS_CODE_ERROR
RENAMED_NAMES = frozenset(semconv.RENAMED)
CODE_NAMES: dict[str, str] = {str(code.value[0]): code.name for code in grpc.StatusCode}
"""Name of a gRPC code by its number."""


class Source(NamedTuple):
    """The process that recorded a span, as its OTLP resource names it."""

    service: str
    """`service.name`."""
    instance: str
    """`service.instance.id`."""
    host: str = ""
    """Boot identifier of the machine; empty where the sender does not give it."""


class SpanView(NamedTuple):
    """One operation of one process; times in Unix nanoseconds. A tuple, since telemetry makes one
    of every span that it takes.
    """

    span_id: str
    parent_id: str
    """Empty for a root."""
    source: Source
    name: str
    kind: str
    """One of KINDS."""
    start_ns: int
    end_ns: int
    error: str
    """Name of a gRPC code, `ERROR` where the sender gives none; empty when it did not fail."""
    attributes: Mapping[str, Value]

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


def plain_value(value: AnyValue) -> Value:
    """An OTLP value as Python's own; lists and maps as JSON, bytes in base64."""
    which = value.WhichOneof("value")
    if which == "string_value":
        return value.string_value
    if which is None:
        return ""
    if which in PLAIN_FIELDS:
        plain: Value = getattr(value, which)
        return plain
    return json.dumps(_json_value(value), ensure_ascii=False, separators=(",", ":"))


def _json_value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_json_value(part) for part in value.array_value.values]
        case "kvlist_value":
            return {pair.key: _json_value(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case which:
            plain: Value = getattr(value, which)
            return plain


def plain_attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """OTLP attributes as a dictionary."""
    return {pair.key: plain_value(pair.value) for pair in pairs}


def text_of(value: Value) -> str:
    """A value as text; true and false in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _present_names(attributes: dict[str, Value]) -> dict[str, Value]:
    """Attributes under the present names of the conventions, see `semconv.RENAMED`."""
    if RENAMED_NAMES.isdisjoint(attributes):
        return attributes
    for old in RENAMED_NAMES.intersection(attributes):
        value = attributes.pop(old)
        attributes.setdefault(semconv.RENAMED[old], value)
    return attributes


def _status_name(status: Value) -> str:
    """The name of a gRPC code, which older senders give by number."""
    number = str(status)
    return CODE_NAMES.get(number, number)


def read_span(
    span: trace_pb2.Span, source: Source, attributes: dict[str, Value] | None = None
) -> SpanView:
    """Read one OTLP span.

    Args:
        attributes: those of the span, where they have been read; they are kept.
    """
    if attributes is None:
        attributes = plain_attributes(span.attributes)
    attributes = _present_names(attributes)
    status = attributes.get(semconv.RPC_STATUS)
    if status is not None and status != "OK":
        attributes[semconv.RPC_STATUS] = status = _status_name(status)
    error = ""
    if span.status.code == FAILED:
        error = str(status) if status not in (None, "", "OK") else "ERROR"
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
    """The spans of one trace with their children, each list in order of start.

    A span whose parent is missing is a root.
    """

    def __init__(self, spans: Sequence[SpanView]) -> None:
        self.spans = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
        self.by_id = {span.span_id: span for span in self.spans}
        self._children: dict[str, list[SpanView]] = {}
        roots = []
        for span in self.spans:
            if span.parent_id in self.by_id and span.parent_id != span.span_id:
                self._children.setdefault(span.parent_id, []).append(span)
            else:
                roots.append(span)
        self.roots = roots or self.spans[:1]
        self.root = min(
            self.roots, key=lambda span: (bool(span.parent_id), span.start_ns, -span.end_ns)
        )
        """The span that stands for the trace: the earliest root without a parent, else the earliest
        whose parent is missing.
        """

    def children_of(self, span: SpanView) -> list[SpanView]:
        """The children of a span, in order of start."""
        return self._children.get(span.span_id, [])

    def below(self, span: SpanView) -> SpanTree:
        """The tree of a span and its descendants, as if it were a trace."""
        members = [span]
        for member in members:
            members += self.children_of(member)
        return SpanTree(members)

    def in_order(self) -> list[tuple[SpanView, int]]:
        """Every span with its depth below a root: parents before children, then by start."""
        others = [root for root in self.roots if root is not self.root]
        rows: list[tuple[SpanView, int]] = []
        stack = [(span, 0) for span in [*reversed(others), self.root]]
        visited: set[str] = set()
        while stack:
            span, depth = stack.pop()
            if span.span_id in visited:
                continue
            visited.add(span.span_id)
            rows.append((span, depth))
            stack.extend((child, depth + 1) for child in reversed(self.children_of(span)))
        return rows


def background_of(span: SpanView) -> str:
    """The kind of background work that a span is, whoever recorded it; empty for none."""
    declared = span.attributes.get(semconv.BACKGROUND)
    if declared:
        return str(declared)
    if kind := background_kind(span.name):
        return kind
    path = span.attributes.get("url.path") or span.attributes.get("http.target")
    return background_kind(f"GET {path}") if path else ""


def background_of_trace(tree: SpanTree) -> str:
    """The kind of background work that a whole trace is; empty where a request caused it."""
    root = tree.root
    return background_of(root) or ("" if root.parent_id else background_root_kind(root.name))


def is_waited_on(parent: SpanView, child: SpanView) -> bool:
    """Whether the parent waited for the child.

    It did not when the child says so, when the child is a long poll, a registration, an export, a
    probe or a follow-up, when the child was cancelled and the parent was not (the
    loser of a hedge), when the child is a consumer's work, or when it outlives a parent of the same
    process: whoever awaits a call cannot end before it.
    """
    declared = child.attributes.get(semconv.WAITED_ON)
    if declared is not None:
        return declared not in (False, "false")
    kind = child.attributes.get(semconv.BACKGROUND) or background_kind(child.name)
    if kind and kind in NEVER_AWAITED:
        return False
    if child.kind == "consumer" or (child.error == "CANCELLED" and parent.error != "CANCELLED"):
        return False
    if child.end_ns <= parent.end_ns or child.source != parent.source:
        return True
    return child.end_ns <= parent.end_ns + child.duration_ns // 100


def error_origin(tree: SpanTree) -> SpanView | None:
    """The span in which the root's error began; None when the root did not fail.

    From the root down it follows the child that failed first, with the same error where there is
    one.
    """
    span = tree.root
    origin = None
    visited: set[str] = set()
    while span.error and span.span_id not in visited:
        origin = span
        visited.add(span.span_id)
        failed = [
            child for child in tree.children_of(span) if child.error and is_waited_on(span, child)
        ]
        if not failed:
            break
        same_error = [child for child in failed if child.error == span.error]
        span = min(same_error or failed, key=lambda child: child.end_ns)
    return origin
