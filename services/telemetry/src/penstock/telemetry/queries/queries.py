"""The queries behind TelemetryService: each checks its request and reads the store."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.counts import AccountKey
from penstock.rpc.errors import Fault, invalid, not_found
from penstock.rpc.run_ids import tree_of
from penstock.telemetry.detection.incidents import Incident
from penstock.telemetry.spans.spans import SpanTree
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.distributions import Distribution
from penstock.telemetry.window.settled_traces import Edge, TraceSummary, summarise_trace

MAX_ROWS = 1000
DEFAULT_ROWS = 50
MAX_OPEN_TRACES_SEARCHED = 1000
MAX_CRITICAL_PATHS = 1000
"""Traces whose critical paths are added up, drawn at random when more match."""

MIN_TRACE_ID_DIGITS = 6
MAX_RUN_BYTES = 128
DEFAULT_RUN_CALLS, MAX_RUN_CALLS = 1000, 5000

COST_KEYS: dict[int, Callable[[AccountKey], str]] = {
    pb.COST_BY_UNSPECIFIED: lambda key: key.tenant,
    pb.COST_BY_TENANT: lambda key: key.tenant,
    pb.COST_BY_RUN: lambda key: key.run_id,
    pb.COST_BY_STEP: lambda key: key.step,
    pb.COST_BY_MODEL: lambda key: key.model,
    pb.COST_BY_CACHE: lambda key: key.cache,
    pb.COST_BY_TIER: lambda key: key.tier,
}


def period_s(window: pb.Window, now_s: float) -> tuple[float, float]:
    """(start, end) of a request's window in Unix seconds.

    Raises:
        Fault: the window ends before it starts.
    """
    from_s = window.from_unix_ms / 1e3
    to_s = window.to_unix_ms / 1e3 or now_s + 1.0
    if from_s > to_s:
        raise invalid("window.from_unix_ms", "lies after window.to_unix_ms")
    return from_s, to_s


def cost_key(by: int) -> Callable[[AccountKey], str]:
    """By which part of an account's key costs are added up.

    Raises:
        Fault: the number is not a CostBy.
    """
    if by not in COST_KEYS:
        raise invalid("by", "is not a known CostBy")
    return COST_KEYS[by]


def find_trace(store: TelemetryStore, id_or_prefix: str) -> tuple[bytes, SpanTree]:
    """The trace with this identifier, or whose identifier begins so, and its spans.

    Raises:
        Fault: it is not an identifier, more than one trace begins so, or none is held.
    """
    prefix = id_or_prefix.lower()
    is_hexadecimal = set(prefix) <= set("0123456789abcdef")
    if not is_hexadecimal or not MIN_TRACE_ID_DIGITS <= len(prefix) <= 32:
        raise invalid("trace_id", f"must be {MIN_TRACE_ID_DIGITS} to 32 hexadecimal digits")
    found = store.window.find(prefix)
    if len(found) > 1:
        raise invalid("trace_id", "more than one trace begins so; give more digits")
    spans = store.window.spans(found[0]) if found else []
    if not spans:
        raise no_trace()
    return found[0], SpanTree(spans)


def no_trace() -> Fault:
    """There is no such trace, or none that the caller may see."""
    return not_found("trace_id", "no such trace is held; it may be too old or was not recorded")


def search_traces(
    store: TelemetryStore, request: pb.SearchTracesRequest, tenant: str
) -> list[TraceSummary]:
    """Matching traces of a tenant, empty for all, the newest first; open ones as they stand.

    Raises:
        Fault: the limit is too large or the window ends before it starts.
    """
    if request.limit > MAX_ROWS:
        raise invalid("limit", f"at most {MAX_ROWS}")
    return _search(store, request, tenant, request.limit or DEFAULT_ROWS)


def _search(
    store: TelemetryStore, request: pb.SearchTracesRequest, tenant: str, limit: int
) -> list[TraceSummary]:
    from_s, to_s = period_s(request.window, store.clock.time())
    from_ns, to_ns = int(from_s * 1e9), int(to_s * 1e9)

    def matches(row: TraceSummary) -> bool:
        return (
            from_ns <= row.start_ns <= to_ns
            and (not request.service or request.service in row.services)
            and request.name in row.name
            and tenant in ("", row.tenant)
            and request.run_id in ("", row.run_id)
            and (bool(row.error) or not request.errors_only)
            and row.duration_ns >= request.min_duration_ms * 1e6
            and (not row.background or request.include_background or bool(request.name))
        )

    found = itertools.islice(filter(matches, _summaries(store)), limit)
    return sorted(found, key=lambda row: -row.start_ns)


def _summaries(store: TelemetryStore) -> Iterator[TraceSummary]:
    """Open traces as they stand, then settled ones."""
    window = store.window
    for trace_id in window.open_ids()[:MAX_OPEN_TRACES_SEARCHED]:
        if spans := window.spans(trace_id):
            yield summarise_trace(trace_id, SpanTree(spans))
    yield from window.summaries()


def traces_of_run(store: TelemetryStore, run_id: str) -> list[bytes]:
    """The traces that may have calls of a run, the earliest first; open ones as they stand.

    Raises:
        Fault: the run's name is empty or too long.
    """
    if not 0 < len(run_id.encode()) <= MAX_RUN_BYTES:
        raise invalid("run_id", f"must have 1 to {MAX_RUN_BYTES} bytes")
    tree = tree_of(run_id)
    rows = [row for row in _summaries(store) if row.run_id and tree_of(row.run_id) == tree]
    return [row.trace_id for row in sorted(rows, key=lambda row: row.start_ns)]


def limit_of_calls(limit: int) -> int:
    """How many calls of a timeline are asked for. Raises Fault."""
    if limit > MAX_RUN_CALLS:
        raise invalid("limit", f"at most {MAX_RUN_CALLS}")
    return limit or DEFAULT_RUN_CALLS


def no_calls() -> Fault:
    """No call of the run is held, or none that the caller may see."""
    return not_found("run_id", "no call of such a run is held; they may be too old")


def trees_in_percentiles(
    store: TelemetryStore, request: pb.GetCriticalPathRequest, tenant: str
) -> list[SpanTree]:
    """The matching traces of a tenant, empty for all, whose duration lies within the request's
    percentiles.

    Raises:
        Fault: the percentiles do not make a range within 0 to 100.
    """
    high = request.to_percentile or 100.0
    if not 0 <= request.from_percentile < high <= 100:
        raise invalid("from_percentile", "must lie below to_percentile, both within 0 to 100")
    matching = pb.SearchTracesRequest(
        window=request.window, name=request.name, include_background=request.include_background
    )
    rows = _search(store, matching, tenant, limit=100_000)
    rows.sort(key=lambda row: row.duration_ns)
    first = int(len(rows) * request.from_percentile / 100)
    last = math.ceil(len(rows) * high / 100 - 1e-6)
    rows = rows[first:last]
    if len(rows) > MAX_CRITICAL_PATHS:
        rows = random.Random(0).sample(rows, MAX_CRITICAL_PATHS)
    spans = [store.window.spans(row.trace_id) for row in rows]
    return [SpanTree(of_trace) for of_trace in spans if of_trace]


def edges(
    store: TelemetryStore, from_s: float, to_s: float, include_background: bool = False
) -> dict[tuple[str, str], Edge]:
    """Calls between services in a period, by (client, server)."""
    statistics = store.statistics
    counted = [statistics.edges]
    if include_background:
        counted.append(statistics.background_edges)
    found: dict[tuple[str, str], Edge] = {}
    for steps in counted:
        for _, key, edge in steps.between(from_s, to_s):
            found.setdefault(key, Edge()).merge(edge)
    return found


def latencies(
    store: TelemetryStore, from_s: float, to_s: float
) -> dict[tuple[str, str], Distribution]:
    """Durations of requests in a period, by (operation, complexity tier)."""
    found: dict[tuple[str, str], Distribution] = {}
    for _, key, durations in store.statistics.latencies.between(from_s, to_s):
        found.setdefault(key, Distribution()).merge(durations)
    return found


def incidents(store: TelemetryStore, request: pb.ListIncidentsRequest) -> list[Incident]:
    """Incidents that were open at some time of the request's window, the newest first.

    Raises:
        Fault: the window ends before it starts.
    """
    from_s, to_s = period_s(request.window, store.clock.time())
    return [
        incident
        for incident in store.detection.incidents.newest_first()
        if request.service in ("", incident.service)
        and (incident.open or not request.open_only)
        and incident.opened_unix_s <= to_s
        and incident.last_unix_s >= from_s
    ]
