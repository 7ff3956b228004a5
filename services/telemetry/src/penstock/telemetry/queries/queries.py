"""What a query asks, turned into looks at the store. Reads only."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.counts import AccountKey
from penstock.rpc.errors import invalid
from penstock.telemetry.spans.spans import Tree
from penstock.telemetry.store import Store
from penstock.telemetry.window.analysis import summarise
from penstock.telemetry.window.statistics import Distribution
from penstock.telemetry.window.traces import Summary

MOST_ROWS = 1000
OPEN_LOOKED_AT = 1000
PATHS = 1000
"""Traces whose critical paths are added up at most, drawn evenly from those that match."""

KEYS: dict[int, Callable[[AccountKey], str]] = {
    pb.COST_BY_UNSPECIFIED: lambda key: key.tenant,
    pb.COST_BY_TENANT: lambda key: key.tenant,
    pb.COST_BY_RUN: lambda key: key.run_id,
    pb.COST_BY_STEP: lambda key: key.step,
    pb.COST_BY_MODEL: lambda key: key.model,
    pb.COST_BY_CACHE: lambda key: key.cache,
    pb.COST_BY_TIER: lambda key: key.tier,
}


def period(window: pb.Window, now: float) -> tuple[float, float]:
    """The window asked for in Unix seconds."""
    from_s, to_s = window.from_unix_ms / 1e3, window.to_unix_ms / 1e3 or now + 1.0
    if from_s > to_s:
        raise invalid("window.from_unix_ms", "lies after window.to_unix_ms")
    return from_s, to_s


def cost_key(by: int) -> Callable[[AccountKey], str]:
    """What rows of cost are told apart by."""
    if by not in KEYS:
        raise invalid("by", "is not a known CostBy")
    return KEYS[by]


def search(store: Store, request: pb.SearchTracesRequest) -> list[Summary]:
    """Matching traces, newest first; open ones are summed up as they stand."""
    from_s, to_s = period(request.window, store.clock.time())
    from_ns, to_ns = int(from_s * 1e9), int(to_s * 1e9)

    def matches(row: Summary) -> bool:
        return (
            from_ns <= row.start_ns <= to_ns
            and (not request.service or request.service in row.services)
            and request.name in row.name
            and request.tenant in ("", row.tenant)
            and request.run_id in ("", row.run_id)
            and (bool(row.error) or not request.errors_only)
            and row.duration_ns >= request.min_duration_ms * 1e6
        )

    found = itertools.islice(filter(matches, _rows(store)), request.limit or 50)
    return sorted(found, key=lambda row: -row.start_ns)


def _rows(store: Store) -> Iterator[Summary]:
    window = store.window
    for trace_id in window.open_ids()[:OPEN_LOOKED_AT]:
        if spans := window.spans(trace_id):
            yield summarise(trace_id, Tree(spans))
    yield from window.summaries()


def sample_trees(store: Store, request: pb.GetCriticalPathRequest, high: float) -> list[Tree]:
    """Traces of the window within the percentiles of duration."""
    asked = pb.SearchTracesRequest(window=request.window, name=request.name, limit=100_000)
    rows = sorted(search(store, asked), key=lambda row: row.duration_ns)
    first, last = (
        int(len(rows) * request.from_percentile / 100),
        int(len(rows) * high / 100 + 0.999999),
    )
    rows = rows[first:last]
    if len(rows) > PATHS:
        rows = random.Random(0).sample(rows, PATHS)
    spans = [store.window.spans(row.trace_id) for row in rows]
    return [Tree(held) for held in spans if held]


def edges(
    store: Store, from_s: float, to_s: float
) -> dict[tuple[str, str], tuple[Distribution, Distribution]]:
    """(client, server) → the server's times and what the hop added."""
    found: dict[tuple[str, str], tuple[Distribution, Distribution]] = {}
    for _, key, (served, hop) in store.analysis.edges.between(from_s, to_s):
        both = found.setdefault(key, (Distribution(), Distribution()))
        both[0].merge(served)
        both[1].merge(hop)
    return found


def latencies(store: Store, from_s: float, to_s: float) -> dict[tuple[str, str], Distribution]:
    """(operation, tier) → times."""
    found: dict[tuple[str, str], Distribution] = {}
    for _, key, held in store.analysis.latencies.between(from_s, to_s):
        found.setdefault(key, Distribution()).merge(held)
    return found
