"""What is learnt from a trace when it has settled: its row, the service graph, latency by tier,
whether to keep it. No gRPC here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from penstock.otel import attributes as names
from penstock.telemetry.spans.spans import SpanView, Tree
from penstock.telemetry.window.retention import Outcome, worth
from penstock.telemetry.window.settled import RequestSeen
from penstock.telemetry.window.statistics import Distribution, Steps
from penstock.telemetry.window.traces import Summary, Window

OUTSIDE = "client"
RESERVOIR = 50
"""Ordinary traces of each route that are kept beyond the others."""

MOST_ROUTES = 1000


class Analysis:
    """Settles traces and adds them up."""

    def __init__(
        self, window: Window, rng: random.Random, on_request: Callable[[RequestSeen], bool]
    ) -> None:
        self._window = window
        self._rng = rng
        self._on_request = on_request
        self._routes: dict[str, Distribution] = {}
        self.edges: Steps[tuple[str, str], tuple[Distribution, Distribution]] = Steps(
            lambda: (Distribution(), Distribution())
        )
        self.latencies: Steps[tuple[str, str], Distribution] = Steps(Distribution)

    def settle(self, trace_id: bytes) -> Summary:
        """Take an open trace into account and pack it."""
        tree = Tree(self._window.spans(trace_id))
        summary = summarise(trace_id, tree)
        self._count_edges(tree)
        root = tree.root
        tier = str(root.attributes.get(names.TIER, ""))
        if tier and (row := self.latencies.at(root.start_ns / 1e9, (root.name, tier))):
            row.add(root.duration_ns, bool(root.error))
        anomalous = self._on_request(RequestSeen(summary, tree)) if root.kind == "server" else False
        summary.kept = self._worth(summary, str(root.attributes.get(names.KEPT, "")), anomalous)
        self._window.settle(trace_id, summary)
        return summary

    def _worth(self, summary: Summary, kept_by_sender: str, anomalous: bool) -> str:
        route = self._routes.get(summary.name)
        if route is None:
            route = Distribution()
            if len(self._routes) < MOST_ROUTES:
                self._routes[summary.name] = route
        route.add(summary.duration_ns)
        p99_ms = route.quantile_ms(0.99)
        outcome = Outcome(
            summary.error, summary.duration_ns / 1e6, p99_ms, route.count, anomalous, kept_by_sender
        )
        return worth(outcome, RESERVOIR, self._rng)

    def _count_edges(self, tree: Tree) -> None:
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


def summarise(trace_id: bytes, tree: Tree) -> Summary:
    """A trace in one row.

    Money and model stand on the span that carries the receipt, nearest the root.
    """
    root = tree.root
    said = _receipt_span(tree).attributes
    saved = int(said.get(names.FULL_PRICE, 0)) - int(said.get(names.PAID, 0))
    services = tuple(sorted({span.source.service for span in tree.spans}))
    return Summary(
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


def _receipt_span(tree: Tree) -> SpanView:
    return next((span for span in tree.spans if names.FULL_PRICE in span.attributes), tree.root)
