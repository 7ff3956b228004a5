"""A trace in one row, and a settled request as the detectors see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.critical_path import Section, critical_path
from penstock.telemetry.spans.spans import SpanTree, SpanView


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
