"""Settled requests through router and one instance, made up, and a detector that is fed with
them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from penstock.otel import attributes as semconv
from penstock.telemetry.detection.group_state import fit_baseline
from penstock.telemetry.detection.incidents import Finding
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.spans.spans import Source, SpanTree, Value
from penstock.telemetry.window.settled_traces import SettledRequest, TraceSummary

from .conftest import span

START_S = 1e9
ROUTER = Source("router", "router")
INSTANCE = Source("inference", "inference-1")


def named(name: str) -> str:
    """An attribute's name as a keyword argument."""
    return name.replace(".", "__")


def settled_request(
    at_s: float,
    compute_ms: float,
    error: str = "",
    instance: Source = INSTANCE,
    **attributes: Value,
) -> SettledRequest:
    """A request at a second after START_S that spends 2 ms in the router.

    The attributes are those of the router's span; `a__b=1` is the attribute `a.b`.
    """
    start_ns = int((START_S + at_s) * 1e9)
    end_ns = start_ns + int((compute_ms + 2.0) * 1e6)
    root = span(
        "RouterService/Embed",
        start_ns,
        end_ns,
        kind="server",
        source=ROUTER,
        error=error,
        **{named(semconv.TIER): "short", **attributes},
    )
    compute = span(
        "InferenceService/Compute",
        start_ns + 1_000_000,
        end_ns - 1_000_000,
        root.span_id,
        source=instance,
        kind="server",
        error=error,
    )
    summary = TraceSummary(
        trace_id=int(at_s * 1e6).to_bytes(16, "big"),
        name=root.name,
        service="router",
        start_ns=start_ns,
        duration_ns=end_ns - start_ns,
        spans=2,
        services=(),
        error=error,
        model="m",
    )
    return SettledRequest(summary, SpanTree([root, compute]))


def usual_requests(rng: random.Random, count: int, mean_ms: float = 10.0) -> list[SettledRequest]:
    """Requests every 0.3 s whose times scatter by a fifth."""
    return slow_requests(rng, count, 0.0, mean_ms)


def slow_requests(
    rng: random.Random, count: int, from_s: float, mean_ms: float, every_s: float = 0.3
) -> list[SettledRequest]:
    """Requests from a second on, whose times scatter by a fifth around `mean_ms`."""
    return [
        settled_request(from_s + every_s * n, mean_ms * rng.lognormvariate(0.0, 0.2))
        for n in range(count)
    ]


def feed(detector: RequestDetector, requests: Sequence[SettledRequest]) -> list[Finding]:
    """Show requests to a detector, fitting every baseline as soon as it is due."""
    findings: list[Finding] = []
    for request in requests:
        findings += detector.observe_request(request)
        while (fit := detector.next_fit()) is not None:
            detector.set_baseline(fit.group, fit_baseline(fit.sample))
    return findings
