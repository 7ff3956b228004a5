"""What is learnt from a trace when it has settled: its row, the service graph, latency by tier,
whether to keep it. No gRPC here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from penstock.otel import attributes as names
from penstock.telemetry.spans.spans import SpanTree, SpanView
from penstock.telemetry.window.distributions import Distribution, TimeSteps
from penstock.telemetry.window.retention import TraceFacts, retention_reason
from penstock.telemetry.window.settled import SettledRequest
from penstock.telemetry.window.traces import TraceSummary, TraceWindow

OUTSIDE = "client"
RESERVOIR = 50
"""Ordinary traces of each route that are kept beyond the others."""

MAX_ROUTES = 1000


class TraceAnalysis:
    """Settles traces and adds them up."""

    def __init__(
        self,
        window: TraceWindow,
        rng: random.Random,
        observe_request: Callable[[SettledRequest], bool],
    ) -> None:
        self._window = window
        self._rng = rng
        self._on_request = observe_request
        self._routes: dict[str, Distribution] = {}
        self.edges: TimeSteps[tuple[str, str], tuple[Distribution, Distribution]] = TimeSteps(
            lambda: (Distribution(), Distribution())
        )
        self.latencies: TimeSteps[tuple[str, str], Distribution] = TimeSteps(Distribution)

    def settle(self, trace_id: bytes) -> TraceSummary:
        """Take an open trace into account and pack it."""
        tree = SpanTree(self._window.spans(trace_id))
        summary = summarise_trace(trace_id, tree)
        self._count_edges(tree)
        root = tree.root
        tier = str(root.attributes.get(names.TIER, ""))
        if tier and (row := self.latencies.at(root.start_ns / 1e9, (root.name, tier))):
            row.add(root.duration_ns, bool(root.error))
        anomalous = (
            self._on_request(SettledRequest(summary, tree)) if root.kind == "server" else False
        )
        summary.kept = self._retention_reason(
            summary, str(root.attributes.get(names.KEPT, "")), anomalous
        )
        self._window.settle(trace_id, summary)
        return summary

    def _retention_reason(self, summary: TraceSummary, kept_by_sender: str, anomalous: bool) -> str:
        route = self._routes.get(summary.name)
        if route is None:
            route = Distribution()
            if len(self._routes) < MAX_ROUTES:
                self._routes[summary.name] = route
        route.add(summary.duration_ns)
        p99_ms = route.quantile_ms(0.99)
        outcome = TraceFacts(
            summary.error, summary.duration_ns / 1e6, p99_ms, route.count, anomalous, kept_by_sender
        )
        return retention_reason(outcome, RESERVOIR, self._rng)

    def _count_edges(self, tree: SpanTree) -> None:
        for span in tree.spans:
            if span.kind != "server":
                continue
            caller = tree.by_id.get(span.parent_id)
            while caller is not None and caller.kind == "internal":
                caller = tree.by_id.get(caller.parent_id)
            client = caller.source.service if caller is not None else OUTSIDE
            edge = self.edges.at(span.start_ns / 1e9, (client, span.source.service))
            if edge is None:
                continue
            edge[0].add(span.duration_ns, span.error not in ("", "CANCELLED"))
            if caller is not None and caller.kind == "client":
                edge[1].add(caller.duration_ns - span.duration_ns)


def summarise_trace(trace_id: bytes, tree: SpanTree) -> TraceSummary:
    """A trace in one row.

    Money and model stand on the span that carries the receipt, nearest the root.
    """
    root = tree.root
    said = _receipt_span(tree).attributes
    saved = int(said.get(names.FULL_PRICE, 0)) - int(said.get(names.PAID, 0))
    services = tuple(sorted({span.source.service for span in tree.spans}))
    return TraceSummary(
        trace_id,
        root.name,
        root.source.service,
        root.start_ns,
        root.duration_ns,
        len(tree.spans),
        services,
        root.error,
        str(root.attributes.get(names.TENANT, "")),
        str(root.attributes.get(names.RUN, "")),
        str(root.attributes.get(names.STEP, "")),
        str(said.get(names.RESPONSE_MODEL) or root.attributes.get(names.REQUEST_MODEL, "")),
        str(said.get(names.CACHE_OUTCOME, "")),
        int(said.get(names.PAID, 0)),
        saved,
    )


def _receipt_span(tree: SpanTree) -> SpanView:
    return next((span for span in tree.spans if names.FULL_PRICE in span.attributes), tree.root)
