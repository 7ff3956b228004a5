"""What is made of a trace when it has settled: its row, the request as the detectors see it, and
statistics over all (the edges of the service graph, and latency by complexity tier).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.critical_path import Section, critical_path
from penstock.telemetry.spans.spans import SpanTree, SpanView
from penstock.telemetry.window.distributions import Distribution, TimeSteps

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

    Cost, model and cache outcome are those of the first span that carries a receipt.
    """
    root = tree.root
    receipt = _receipt_span(tree).attributes
    paid_microusd = int(receipt.get(semconv.PAID, 0))
    return TraceSummary(
        trace_id,
        root.name,
        root.source.service,
        root.start_ns,
        root.duration_ns,
        spans=len(tree.spans),
        services=tuple(sorted({span.source.service for span in tree.spans})),
        error=root.error,
        tenant=str(root.attributes.get(semconv.TENANT, "")),
        run_id=str(root.attributes.get(semconv.RUN, "")),
        step=str(root.attributes.get(semconv.STEP, "")),
        model=str(
            receipt.get(semconv.RESPONSE_MODEL) or root.attributes.get(semconv.REQUEST_MODEL, "")
        ),
        cache=str(receipt.get(semconv.CACHE_OUTCOME, "")),
        paid_microusd=paid_microusd,
        saved_microusd=int(receipt.get(semconv.FULL_PRICE, 0)) - paid_microusd,
    )


def _receipt_span(tree: SpanTree) -> SpanView:
    return next((span for span in tree.spans if semconv.FULL_PRICE in span.attributes), tree.root)


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
        self.latencies: TimeSteps[tuple[str, str], Distribution] = TimeSteps(Distribution)
        """By (operation, complexity tier)."""

    def add(self, tree: SpanTree) -> None:
        """Count a settled trace."""
        for span in tree.spans:
            if span.kind == "server":
                self._count_call(tree, span)
        root = tree.root
        tier = str(root.attributes.get(semconv.TIER, ""))
        if not tier:
            return
        latencies = self.latencies.value(root.start_ns / 1e9, (root.name, tier))
        if latencies is not None:
            latencies.add(root.duration_ns, bool(root.error))

    def _count_call(self, tree: SpanTree, span: SpanView) -> None:
        caller = _caller(tree, span)
        client = caller.source.service if caller is not None else EXTERNAL_CLIENT
        edge = self.edges.value(span.start_ns / 1e9, (client, span.source.service))
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
