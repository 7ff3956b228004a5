"""Statistics over settled traces: the edges of the service graph, and latency by complexity
tier.
"""

from __future__ import annotations

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.spans import SpanTree, SpanView
from penstock.telemetry.window.distributions import Distribution, TimeSteps

EXTERNAL_CLIENT = "client"
"""Name of a caller that sends no spans."""


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
