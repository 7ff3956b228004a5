"""A small fleet in virtual time, whose requests come from a published trace of LLM calls: what the
fault replay shows to the detectors.

Router, cache, batcher and four inference instances with slots. Arrivals and token counts are the
trace's own (Azure 2023, conversation), times of a prompt and of a token those of a published table
(SageServe, Llama 2 70B on A100); service times scatter, load swells and ebbs, an instance is
replaced every hour. Nothing in it knows how it is watched.
"""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.spans import Source, SpanTree, SpanView, Value
from penstock.telemetry.window.trace_summary import SettledRequest, TraceSummary

START_UNIX_S = 1_700_000_000.0
MODEL = "chat"
PROMPT_S_PER_TOKEN = 0.196 / 512
TOKEN_S = 0.0549
SCATTER = 0.12
INSTANCES, SLOTS = 4, 24
HIT_SHARE, AUDITED, AGREED = 0.30, 0.10, 0.98
CONFIDENCE, CONFIDENCE_SCATTER = 0.86, 0.05
SWELL = 0.25
REPLACED_S = 3600.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong, from when to when; `strength` is the kind's own."""

    kind: str
    from_s: float
    to_s: float
    strength: float

    def at(self, kind: str, now_s: float) -> float:
        """Its strength if it is of this kind and on; else 0."""
        return self.strength if self.kind == kind and self.from_s <= now_s < self.to_s else 0.0


@dataclass
class Fleet:
    """The instances: when each slot is free again."""

    free: list[list[float]] = field(
        default_factory=lambda: [[0.0] * SLOTS for _ in range(INSTANCES)]
    )

    def take(self, now_s: float, rng: random.Random) -> int:
        """The instance with the fewest requests in flight, any of those that have as few."""
        loads = [sum(free > now_s for free in slots) for slots in self.free]
        return rng.choice([number for number, load in enumerate(loads) if load == min(loads)])

    def hold(self, number: int, now_s: float, seconds: float) -> float:
        """Seconds that a request waits before it holds a slot."""
        start = max(now_s, heapq.heappop(self.free[number]))
        heapq.heappush(self.free[number], start + seconds)
        return start - now_s


def arrivals(
    folder: Path | None, rng: random.Random, hours: float
) -> Iterator[tuple[float, int, int]]:
    """(second, tokens in, tokens out), the trace's hour again and again, its clock running slower
    and faster.
    """
    rows = _trace(folder / "azure-llm-2023" / "conv.csv") if folder else _made(rng)
    length = rows[-1][0] + 1.0
    for turn in range(math.ceil(hours * 3600 / length) + 1):
        for at, tokens_in, tokens_out in rows:
            raw = turn * length + at
            now = raw + SWELL * 1500.0 * math.sin(raw / 5400.0 * math.tau) / math.tau
            if now >= hours * 3600:
                return
            yield max(0.0, now), tokens_in, tokens_out


def _trace(path: Path) -> list[tuple[float, int, int]]:
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    return [
        (at - times[0], int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for at, row in zip(times, rows, strict=True)
    ]


def _made(rng: random.Random) -> list[tuple[float, int, int]]:
    """An hour of arrivals like the trace's, where there is none."""
    at, rows = 0.0, []
    while at < 3600.0:
        at += rng.expovariate(5.4)
        rows.append(
            (at, int(rng.lognormvariate(6.5, 0.9)) + 1, int(rng.lognormvariate(5.0, 0.7)) + 1)
        )
    return rows


class World:
    """Requests as they settle, in order of their ends."""

    def __init__(self, faults: list[Fault], rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._fleet = Fleet()
        self._number = 0

    def strength(self, kind: str, now_s: float) -> float:
        """How strong a kind of fault is now."""
        return max((fault.at(kind, now_s) for fault in self._faults), default=0.0)

    def run(
        self, calls: Iterator[tuple[float, int, int]]
    ) -> Iterator[tuple[float, SettledRequest]]:
        """(second of its end, request)."""
        ends: list[tuple[float, int, SettledRequest]] = []
        for now_s, tokens_in, tokens_out in calls:
            while ends and ends[0][0] <= now_s:
                end_s, _, seen = heapq.heappop(ends)
                yield end_s, seen
            seen = self._request(now_s, tokens_in, tokens_out)
            heapq.heappush(ends, (now_s + seen.summary.duration_ns / 1e9, self._number, seen))
        while ends:
            end_s, _, seen = heapq.heappop(ends)
            yield end_s, seen

    def _request(self, now_s: float, tokens_in: int, tokens_out: int) -> SettledRequest:
        rng, hit = self._rng, self._rng.random() < HIT_SHARE
        self._number += 1
        own_ms = [
            rng.lognormvariate(0.0, 0.3),
            rng.lognormvariate(0.5, 0.3),
            rng.lognormvariate(-0.5, 0.3),
        ]
        said: dict[str, Value] = {
            semconv.TIER: semconv.complexity_tier(tokens_in + tokens_out),
            semconv.INPUT_TOKENS: tokens_in,
            semconv.OUTPUT_TOKENS: tokens_out,
            semconv.RESPONSE_MODEL: MODEL,
        }
        if hit:
            self._say_hit(said, now_s)
            return _seen(self._number, now_s, own_ms[:2], None, said, "")
        instance = self._fleet.take(now_s, rng)
        seconds = tokens_in * PROMPT_S_PER_TOKEN + tokens_out * TOKEN_S
        slow = self.strength("slow instance", now_s) if instance == 0 else 0.0
        seconds *= rng.lognormvariate(0.0, SCATTER) * (slow or 1.0)
        failed = rng.random() < max(
            0.001, self.strength("error burst", now_s) if instance == 1 else 0.0
        )
        seconds *= 0.02 if failed else 1.0
        wait_s = self._fleet.hold(instance, now_s, seconds)
        said |= {
            semconv.PAID: tokens_in + 2 * tokens_out,
            semconv.FULL_PRICE: tokens_in + 2 * tokens_out,
        }
        said |= {semconv.QUEUED_MS: wait_s * 1e3, semconv.CONFIDENCE: self._confidence(now_s)}
        name = f"inference-{instance}-{int((now_s + 900.0 * instance) // REPLACED_S)}"
        return _seen(
            self._number,
            now_s,
            own_ms,
            (name, wait_s, seconds),
            said,
            "UNAVAILABLE" if failed else "",
        )

    def _confidence(self, now_s: float) -> float:
        drifted = self.strength("drift", now_s)
        began = next((fault.from_s for fault in self._faults if fault.at("drift", now_s)), now_s)
        middle = CONFIDENCE - drifted * min(1.0, (now_s - began) / 120.0)
        return min(0.999, max(0.001, self._rng.gauss(middle, CONFIDENCE_SCATTER)))

    def _say_hit(self, said: dict[str, Value], now_s: float) -> None:
        rng = self._rng
        said |= {semconv.CACHE_OUTCOME: "semantic_hit", semconv.FULL_PRICE: 300, semconv.PAID: 1}
        said[semconv.CACHE_CONFIDENCE] = min(0.999, rng.betavariate(60, 2))
        if rng.random() < AUDITED:
            said[semconv.AGREEMENT] = float(
                rng.random() < AGREED - self.strength("cache poisoning", now_s)
            )


def _seen(
    number: int,
    now_s: float,
    own_ms: list[float],
    served: tuple[str, float, float] | None,
    said: dict[str, Value],
    error: str,
) -> SettledRequest:
    """A request's spans: router over cache, and over batcher and an instance where it was no
    hit.
    """
    start = int((START_UNIX_S + now_s) * 1e9)
    looked = start + int(own_ms[0] * 1e6)
    found = looked + int(own_ms[1] * 1e6)
    spans, end = [_span("cache", "cache", "CacheService/Lookup", looked, found, "")], found
    if served is not None:
        name, wait_s, seconds = served
        began = found + int((own_ms[2] / 1e3 + wait_s) * 1e9)
        end = began + int(seconds * 1e9)
        spans.append(_span("batcher", "batcher", "BatcherService/Compute", found, end, error))
        spans.append(
            _span("inference", name, "InferenceService/Compute", began, end, error, "batcher")
        )
    end += int(own_ms[0] * 0.3e6)
    root = SpanView(
        "router",
        "",
        Source("router", "router"),
        "RouterService/Generate",
        "server",
        start,
        end,
        error,
        said,
    )
    services = tuple(sorted({span.source.service for span in spans} | {"router"}))
    cache = str(said.get(semconv.CACHE_OUTCOME, ""))
    summary = TraceSummary(
        number.to_bytes(16, "big"),
        root.name,
        "router",
        start,
        end - start,
        len(spans) + 1,
        services,
        error,
        model=MODEL,
        cache=cache,
    )
    return SettledRequest(summary, SpanTree([root, *spans]))


def _span(
    service: str, instance: str, name: str, start: int, end: int, error: str, parent: str = "router"
) -> SpanView:
    return SpanView(
        service, parent, Source(service, instance), name, "server", start, end, error, {}
    )
