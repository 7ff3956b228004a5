"""What is made of a trace when it has settled: its row, the request as the detectors see it, and
statistics over all (the edges of the service graph, and latency by complexity tier).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from sys import intern

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.critical_path import Section, critical_path
from penstock.telemetry.spans.spans import (
    SpanTree,
    SpanView,
    background_of,
    background_of_trace,
)
from penstock.telemetry.window.distributions import Distribution, TimeSteps

CONVERSATIONS = (semconv.CONVERSATION, "session.id", semconv.MCP_SESSION)
"""Names of what holds the calls of one task together, where a caller gives no run."""
STEPS = (semconv.AGENT_NAME, "agent.name", semconv.TOOL_NAME, "tool.name", semconv.MCP_METHOD)
"""Names of what a caller was doing, where it gives no step."""
MODELS = (semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL)

EXTERNAL_CLIENT = "client"
"""Name of a caller that sends no spans."""


@dataclass(slots=True)
class TraceSummary:
    """A trace in one row, for searching; texts are empty where the trace does not say."""

    trace_id: bytes
    name: str
    """Of the root span, as are service, start, duration and error."""
    service: str
    start_ns: int
    """Unix nanoseconds."""
    duration_ns: int
    spans: int
    services: tuple[str, ...]
    error: str
    tenant: str = ""
    run_id: str = ""
    step: str = ""
    model: str = ""
    cache: str = ""
    """Outcome in the cache, such as `exact_hit`."""
    paid_microusd: int = 0
    saved_microusd: int = 0
    background: str = ""
    """Kind of background work; empty for a request."""
    kept: str = ""
    """Why the trace outlives ordinary ones, see `retention_reason`; empty for an ordinary one."""


@dataclass(frozen=True)
class SettledRequest:
    """A request whose trace has settled."""

    summary: TraceSummary
    tree: SpanTree

    @cached_property
    def critical_path(self) -> Sequence[Section]:
        """The sections of its critical path, computed once for all detectors."""
        return critical_path(self.tree)

    @property
    def end_unix_s(self) -> float:
        """When it ended."""
        return (self.summary.start_ns + self.summary.duration_ns) / 1e9


def summarise_trace(trace_id: bytes, tree: SpanTree) -> TraceSummary:
    """The row of a trace.

    Model and cache outcome are those of the first span that carries a receipt; cost is that of all
    receipts, since the trace of an agent's run has many. Texts that most rows share are one object.
    """
    root = tree.root
    receipts = _receipts(tree)
    receipt = receipts[0].attributes if receipts else root.attributes
    paid_microusd = sum(int(span.attributes.get(semconv.PAID, 0)) for span in receipts)
    full_price = sum(int(span.attributes.get(semconv.FULL_PRICE, 0)) for span in receipts)
    return TraceSummary(
        trace_id,
        intern(root.name),
        root.source.service,
        root.start_ns,
        root.duration_ns,
        spans=len(tree.spans),
        services=tuple(sorted({span.source.service for span in tree.spans})),
        error=root.error,
        tenant=intern(_first(tree, semconv.TENANT)),
        run_id=_first(tree, semconv.RUN, *CONVERSATIONS),
        step=_first(tree, semconv.STEP, *STEPS),
        model=intern(str(receipt.get(semconv.RESPONSE_MODEL, "")) or _first(tree, *MODELS)),
        cache=intern(str(receipt.get(semconv.CACHE_OUTCOME, ""))),
        paid_microusd=paid_microusd,
        saved_microusd=full_price - paid_microusd,
        background=background_of_trace(tree),
    )


def _receipts(tree: SpanTree) -> list[SpanView]:
    """The spans that carry a receipt, but for those below another one."""
    with_receipt = [span for span in tree.spans if semconv.FULL_PRICE in span.attributes]
    if len(with_receipt) < 2:
        return with_receipt
    found: dict[str, SpanView] = {}
    for span, _ in tree.in_order():
        if span.parent_id in found:
            found[span.span_id] = found[span.parent_id]
        elif semconv.FULL_PRICE in span.attributes:
            found[span.span_id] = span
    return list({id(span): span for span in found.values()}.values())


def _first(tree: SpanTree, *names: str) -> str:
    """The first value that the root has under one of these names; where the root does not say whose
    it is, as a caller's own span or that of the HTTP edge, that of the earliest span that has one.
    """
    spans = (tree.root,) if semconv.TENANT in tree.root.attributes else (tree.root, *tree.spans)
    for name in names:
        for span in spans:
            if value := span.attributes.get(name):
                return str(value)
    return ""


def requests_of(tree: SpanTree) -> list[SpanTree]:
    """The requests in a trace, each as a tree of its own: the outermost server spans.

    A caller that sends spans itself, such as an agent, is the root of a trace with many requests.
    """
    return [tree] if tree.root.kind == "server" else calls_of(tree)


def calls_of(tree: SpanTree) -> list[SpanTree]:
    """The outermost server spans of a trace that are no background work, each as a tree of its own.

    A trace may have several without a span of their caller.
    """
    outermost: list[SpanView] = []
    inside: set[str] = set()
    for span, _ in tree.in_order():
        if span.parent_id in inside:
            inside.add(span.span_id)
        elif span.kind == "server":
            inside.add(span.span_id)
            if not background_of(span):
                outermost.append(span)
    return [tree.below(span) for span in outermost]


class Edge:
    """Calls from one service to another."""

    __slots__ = ("hop", "server")

    def __init__(self) -> None:
        self.server = Distribution()
        """Durations at the server."""
        self.hop = Distribution()
        """By how much each call took longer at the client."""

    def merge(self, other: Edge) -> None:
        """Add another's calls."""
        self.server.merge(other.server)
        self.hop.merge(other.hop)


class TraceStatistics:
    """Counts every trace as it settles, in steps of ten seconds."""

    def __init__(self) -> None:
        self.edges: TimeSteps[tuple[str, str], Edge] = TimeSteps(Edge)
        """By (client, server)."""
        self.background_edges: TimeSteps[tuple[str, str], Edge] = TimeSteps(Edge)
        """The same of background work, which is in none of the others."""
        self.latencies: TimeSteps[tuple[str, str], Distribution] = TimeSteps(Distribution)
        """By (operation, complexity tier)."""

    def add(self, tree: SpanTree) -> None:
        """Count a settled trace."""
        is_background = bool(background_of_trace(tree))
        for span in tree.spans:
            if span.kind == "server":
                to_background = is_background or bool(background_of(span))
                self._count_call(tree, span, self.background_edges if to_background else self.edges)
        if not is_background:
            for request in requests_of(tree):
                self._count_latency(request.root)

    def _count_latency(self, root: SpanView) -> None:
        tier = str(root.attributes.get(semconv.TIER, ""))
        if not tier:
            return
        latencies = self.latencies.value(root.start_ns / 1e9, (root.name, tier))
        if latencies is not None:
            latencies.add(root.duration_ns, bool(root.error))

    def _count_call(
        self, tree: SpanTree, span: SpanView, edges: TimeSteps[tuple[str, str], Edge]
    ) -> None:
        caller = _caller(tree, span)
        client = caller.source.service if caller is not None else EXTERNAL_CLIENT
        edge = edges.value(span.start_ns / 1e9, (client, span.source.service))
        if edge is None:
            return
        edge.server.add(span.duration_ns, span.error not in ("", "CANCELLED"))
        if caller is not None and caller.kind == "client":
            edge.hop.add(caller.duration_ns - span.duration_ns)


def _caller(tree: SpanTree, span: SpanView) -> SpanView | None:
    """The nearest ancestor that is not internal; None when there is none."""
    caller = tree.by_id.get(span.parent_id)
    while caller is not None and caller.kind == "internal":
        caller = tree.by_id.get(caller.parent_id)
    return caller
