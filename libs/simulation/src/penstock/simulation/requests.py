"""A small fleet in virtual time whose settled requests the anomaly detectors are replayed on.

A router, a cache, a batcher and four inference instances with slots. Arrivals and token counts come
from a published trace (Azure 2023, conversation), the times of a prompt and of a token from a
published table (SageServe: Llama 2 70B on A100). Service times scatter, load rises and falls, and
each instance is replaced every hour. Nothing here knows how it is monitored.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from penstock.otel import attributes as semconv
from penstock.otel.counts import complexity_tier
from penstock.simulation.audits import Audits
from penstock.simulation.azure_trace import TraceRow, read_azure_trace
from penstock.telemetry.spans.spans import Source, SpanTree, SpanView, Value
from penstock.telemetry.window.settled_traces import SettledRequest, TraceSummary

START_UNIX_S = 1_700_000_000.0
MODEL = "chat"
PROMPT_TOKEN_S = 0.196 / 512
OUTPUT_TOKEN_S = 0.0549
SERVICE_TIME_SPREAD = 0.12
"""Standard deviation of the logarithm of service times."""
INSTANCES, SLOTS = 4, 24
SLOW_INSTANCE, FAILING_INSTANCE = 0, 1
ERROR_SHARE = 0.001
FAILED_AFTER_SHARE = 0.02
"""A failed request ends after this share of its service time."""
HIT_SHARE = 0.30
CONFIDENCE, CONFIDENCE_SPREAD = 0.86, 0.05
DRIFT_S = 120.0
"""Confidence sinks over this time when it drifts."""
LOAD_SWING = 0.25
LOAD_PERIOD_S = 5400.0
LOAD_SWING_S = 1500.0
"""How far the trace's clock runs ahead and behind, at a load swing of 1."""
REPLACED_EVERY_S = 3600.0
REPLACEMENT_STAGGER_S = 900.0
GENERATED_RATE_PER_S = 5.4


@dataclass(frozen=True)
class Fault:
    """A fault: its kind, from when to when in virtual seconds, and its strength.

    What the strength means depends on the kind.
    """

    kind: str
    from_s: float
    to_s: float
    strength: float

    def strength_at(self, kind: str, now_s: float) -> float:
        """Its strength where it is of this kind and active; else 0."""
        return self.strength if self.kind == kind and self.from_s <= now_s < self.to_s else 0.0


@dataclass
class Instances:
    """The slots of each instance, by the time at which each is free again."""

    free_at_s: list[list[float]] = field(
        default_factory=lambda: [[0.0] * SLOTS for _ in range(INSTANCES)]
    )

    def least_loaded(self, now_s: float, rng: random.Random) -> int:
        """An instance with the fewest requests in flight, at random among equals."""
        loads = [sum(free > now_s for free in slots) for slots in self.free_at_s]
        return rng.choice([number for number, load in enumerate(loads) if load == min(loads)])

    def occupy(self, number: int, now_s: float, seconds: float) -> float:
        """Occupy the first free slot for so many seconds; return the seconds waited for it."""
        start_s = max(now_s, heapq.heappop(self.free_at_s[number]))
        heapq.heappush(self.free_at_s[number], start_s + seconds)
        return start_s - now_s


def arrivals(data: Path | None, rng: random.Random, hours: float) -> Iterator[TraceRow]:
    """The trace's hour repeated over so many hours, its clock running slower and faster.

    Without a data folder, an hour of generated requests like the trace's.
    """
    rows = read_azure_trace(data) if data else _generated_hour(rng)
    length_s = rows[-1].at_s + 1.0
    for repetition in range(math.ceil(hours * 3600 / length_s) + 1):
        for row in rows:
            trace_s = repetition * length_s + row.at_s
            swing = LOAD_SWING * LOAD_SWING_S * math.sin(trace_s / LOAD_PERIOD_S * math.tau)
            now_s = trace_s + swing / math.tau
            if now_s >= hours * 3600:
                return
            yield row._replace(at_s=max(0.0, now_s))


def _generated_hour(rng: random.Random) -> list[TraceRow]:
    at_s = 0.0
    rows = []
    while at_s < 3600.0:
        at_s += rng.expovariate(GENERATED_RATE_PER_S)
        input_tokens = int(rng.lognormvariate(6.5, 0.9)) + 1
        output_tokens = int(rng.lognormvariate(5.0, 0.7)) + 1
        rows.append(TraceRow(at_s, input_tokens, output_tokens))
    return rows


class Service(NamedTuple):
    """How an instance served a request: its name, the wait for a slot, and the service time."""

    instance: str
    wait_s: float
    seconds: float


class RequestSimulation:
    """Serves calls and yields them as settled requests, in the order of their ends."""

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._instances = Instances()
        self._audits = Audits()
        self._number = 0

    def run(self, calls: Iterator[TraceRow]) -> Iterator[tuple[float, SettledRequest]]:
        """Pairs of (second of its end, settled request)."""
        ends: list[tuple[float, int, SettledRequest]] = []
        for call in calls:
            while ends and ends[0][0] <= call.at_s:
                end_s, _, request = heapq.heappop(ends)
                yield end_s, request
            request = self._serve(call)
            end_s = call.at_s + request.summary.duration_ns / 1e9
            heapq.heappush(ends, (end_s, self._number, request))
        while ends:
            end_s, _, request = heapq.heappop(ends)
            yield end_s, request

    def _strength(self, kind: str, now_s: float) -> float:
        return max((fault.strength_at(kind, now_s) for fault in self._faults), default=0.0)

    def _serve(self, call: TraceRow) -> SettledRequest:
        rng = self._rng
        is_hit = rng.random() < HIT_SHARE
        self._number += 1
        own_ms = OwnTimes(
            router=rng.lognormvariate(0.0, 0.3),
            cache=rng.lognormvariate(0.5, 0.3),
            batcher=rng.lognormvariate(-0.5, 0.3),
        )
        attributes: dict[str, Value] = {
            semconv.TIER: complexity_tier(call.input_tokens + call.output_tokens),
            semconv.INPUT_TOKENS: call.input_tokens,
            semconv.OUTPUT_TOKENS: call.output_tokens,
            semconv.RESPONSE_MODEL: MODEL,
        }
        if is_hit:
            attributes |= self._hit_attributes(call.at_s)
            return _settled(self._number, call.at_s, own_ms, None, attributes, "")
        service, failed = self._compute(call)
        price = call.input_tokens + 2 * call.output_tokens
        attributes |= {
            semconv.PAID: price,
            semconv.FULL_PRICE: price,
            semconv.QUEUED_MS: service.wait_s * 1e3,
            semconv.CONFIDENCE: self._confidence(call.at_s),
        }
        error = "UNAVAILABLE" if failed else ""
        return _settled(self._number, call.at_s, own_ms, service, attributes, error)

    def _compute(self, call: TraceRow) -> tuple[Service, bool]:
        """The service by an instance, and whether it failed."""
        rng = self._rng
        now_s = call.at_s
        number = self._instances.least_loaded(now_s, rng)
        seconds = call.input_tokens * PROMPT_TOKEN_S + call.output_tokens * OUTPUT_TOKEN_S
        slowdown = self._strength("slow instance", now_s) if number == SLOW_INSTANCE else 0.0
        seconds *= rng.lognormvariate(0.0, SERVICE_TIME_SPREAD) * (slowdown or 1.0)
        errors = self._strength("error burst", now_s) if number == FAILING_INSTANCE else 0.0
        failed = rng.random() < max(ERROR_SHARE, errors)
        seconds *= FAILED_AFTER_SHARE if failed else 1.0
        wait_s = self._instances.occupy(number, now_s, seconds)
        generation = int((now_s + REPLACEMENT_STAGGER_S * number) // REPLACED_EVERY_S)
        return Service(f"inference-{number}-{generation}", wait_s, seconds), failed

    def _confidence(self, now_s: float) -> float:
        lost = self._strength("drift", now_s)
        starts_s = (fault.from_s for fault in self._faults if fault.strength_at("drift", now_s))
        began_s = next(starts_s, now_s)
        mean = CONFIDENCE - lost * min(1.0, (now_s - began_s) / DRIFT_S)
        return min(0.999, max(0.001, self._rng.gauss(mean, CONFIDENCE_SPREAD)))

    def _hit_attributes(self, now_s: float) -> dict[str, Value]:
        rng = self._rng
        attributes: dict[str, Value] = {
            semconv.CACHE_OUTCOME: "semantic_hit",
            semconv.FULL_PRICE: 300,
            semconv.PAID: 1,
            semconv.CACHE_CONFIDENCE: min(0.999, rng.betavariate(60, 2)),
        }
        agreement = self._audits.of_hit(self._strength("cache poisoning", now_s), rng)
        if agreement is not None:
            attributes[semconv.AGREEMENT] = float(agreement)
        return attributes


class OwnTimes(NamedTuple):
    """Milliseconds that a request spends in services other than the instance."""

    router: float
    cache: float
    batcher: float


def _settled(
    number: int,
    now_s: float,
    own_ms: OwnTimes,
    service: Service | None,
    attributes: dict[str, Value],
    error: str,
) -> SettledRequest:
    """A request as telemetry sees it; `service` is None for a hit."""
    start_ns = int((START_UNIX_S + now_s) * 1e9)
    children, end_ns = _child_spans(start_ns, own_ms, service, error)
    end_ns += int(own_ms.router * 0.3e6)
    root = SpanView(
        "router",
        "",
        Source("router", "router"),
        "RouterService/Generate",
        "server",
        start_ns,
        end_ns,
        error,
        attributes,
    )
    summary = TraceSummary(
        number.to_bytes(16, "big"),
        root.name,
        "router",
        start_ns,
        end_ns - start_ns,
        len(children) + 1,
        tuple(sorted({span.source.service for span in children} | {"router"})),
        error,
        model=MODEL,
        cache=str(attributes.get(semconv.CACHE_OUTCOME, "")),
    )
    return SettledRequest(summary, SpanTree([root, *children]))


def _child_spans(
    start_ns: int, own_ms: OwnTimes, service: Service | None, error: str
) -> tuple[list[SpanView], int]:
    """The spans below the router's, and the end of the last one."""
    cache_start_ns = start_ns + int(own_ms.router * 1e6)
    cache_end_ns = cache_start_ns + int(own_ms.cache * 1e6)
    cache = _span("cache", "cache", "CacheService/Lookup", (cache_start_ns, cache_end_ns), "")
    if service is None:
        return [cache], cache_end_ns
    compute_start_ns = cache_end_ns + int((own_ms.batcher / 1e3 + service.wait_s) * 1e9)
    end_ns = compute_start_ns + int(service.seconds * 1e9)
    batcher = _span("batcher", "batcher", "BatcherService/Compute", (cache_end_ns, end_ns), error)
    instance = _span(
        "inference",
        service.instance,
        "InferenceService/Compute",
        (compute_start_ns, end_ns),
        error,
        parent="batcher",
    )
    return [cache, batcher, instance], end_ns


def _span(
    service: str,
    instance: str,
    name: str,
    start_end_ns: tuple[int, int],
    error: str,
    *,
    parent: str = "router",
) -> SpanView:
    source = Source(service, instance)
    return SpanView(service, parent, source, name, "server", *start_end_ns, error, {})
