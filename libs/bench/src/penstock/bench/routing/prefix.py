"""Prefix reuse on a real trace, in virtual time.

Each instance caches a tenth of the distinct blocks (LRU over blocks of 512 tokens). The router
knows nothing of these caches; it keeps an index of what it has sent where.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.bench.harness.intervals import blocks_of, pooled_quantile
from penstock.bench.harness.options import Options
from penstock.router.calls.affinity import PrefixIndex
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Member
from penstock.router.routing.strategy import RequestFeatures
from penstock.simulation.fleet import SERVICE_S, FleetSimulation, Scenario, SimulatedRequest

MOONCAKE = "mooncake"
INSTANCES = 16
CACHED_SHARE = 0.1
LOAD = 0.7
BLOCK_COST, TOKEN_COST, FIXED_COST = 1.0, 0.01, 0.5
"""Work of a block of 512 input tokens that is not cached, of an output token, and of any request;
only their ratio matters here.
"""
TYPICAL_COST = FIXED_COST + 20.0
"""A request of this cost takes a mean service time."""
PACE_ROUNDS = 3
PARTS = 20
"""Parts of consecutive calls that intervals are over."""


@dataclass(frozen=True)
class TracedCall:
    """One call of the trace: its time, its prompt's blocks and its output tokens."""

    at_s: float
    blocks: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Reuse:
    """What became of the calls, in the order in which they came.

    Attributes:
        hits: blocks of each call that its instance had.
        ideal: blocks that one shared cache which forgets nothing would have had.
        latencies: in mean service times.
    """

    hits: Sequence[int]
    ideal: Sequence[int]
    latencies: Sequence[float]

    @property
    def hit_rate(self) -> float:
        """Hits over those of the shared cache."""
        return sum(self.hits) / max(1, sum(self.ideal))

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies."""
        return pooled_quantile([self.latencies], 0.99)


Part = Mapping[str, Reuse]
"""One part of the trace, by the way of choosing."""


def parts(reuse: Part) -> list[Part]:
    """The trace in PARTS parts of consecutive calls."""
    cut = {
        name: list(
            map(
                Reuse,
                blocks_of(found.hits, PARTS),
                blocks_of(found.ideal, PARTS),
                blocks_of(found.latencies, PARTS),
            )
        )
        for name, found in reuse.items()
    }
    return [dict(zip(cut, row, strict=True)) for row in zip(*cut.values(), strict=True)]


def figures(chosen: Sequence[Part]) -> dict[str, float]:
    """Reuse with affinity, and its tail over that without."""
    p99 = {
        name: pooled_quantile([part[name].latencies for part in chosen], 0.99)
        for name in ("affinity", "no affinity")
    }
    found = [part["affinity"] for part in chosen]
    hits, ideal = sum(sum(one.hits) for one in found), sum(sum(one.ideal) for one in found)
    return {
        "prefix_hit_rate": hits / max(1, ideal),
        "prefix_p99_vs_no_affinity": p99["affinity"] / p99["no affinity"],
    }


def read_calls(options: Options) -> list[TracedCall]:
    """The Mooncake conversation trace (Qin et al., 2024), or generated sessions like it."""
    folder = options.folder(MOONCAKE)
    if folder is None:
        return list(_generated_calls())
    return list(_read(folder / "conversation_trace.jsonl"))


def _read(path: Path) -> Iterator[TracedCall]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        yield TracedCall(row["timestamp"] / 1000.0, tuple(row["hash_ids"]), row["output_length"])


def _generated_calls() -> Iterator[TracedCall]:
    rng = random.Random(7)
    new_blocks = iter(range(1, 1 << 40))
    sessions = [[0, next(new_blocks)] for _ in range(200)]
    for number in range(3000):
        session = sessions[rng.randrange(len(sessions))]
        session.extend(next(new_blocks) for _ in range(rng.randrange(1, 4)))
        yield TracedCall(number * 0.3, tuple(session), rng.randrange(20, 600))
        if len(session) > 40:
            session[1:] = [next(new_blocks)]


@dataclass(frozen=True)
class Workload:
    """The calls, how much slower than recorded they come, and the seconds of a unit of cost."""

    calls: Sequence[TracedCall]
    pace: float
    unit_s: float

    def seconds(self, missing_blocks: float, output_tokens: float) -> float:
        """The work of a request on an instance of speed 1."""
        cost = FIXED_COST + BLOCK_COST * missing_blocks + TOKEN_COST * output_tokens
        return self.unit_s * cost


class PrefixFleet(FleetSimulation):
    """A fleet with a cache in each instance, and one router that knows what it sent where.

    With `affine` the router uses that in its choice.
    """

    def __init__(
        self, scenario: Scenario, strategy: str, workload: Workload, *, affine: bool
    ) -> None:
        super().__init__(scenario, strategy)
        calls = workload.calls
        distinct = len({block for call in calls for block in call.blocks})
        capacity = max(1, int(CACHED_SHARE * distinct))
        self._workload = workload
        self._affine = affine
        self._caches = PrefixIndex(capacity)
        self._index = PrefixIndex(capacity)
        self._mean_output = sum(call.output_tokens for call in calls) / len(calls)
        self.hits: list[int] = []
        self.work_s = 0.0

    def arrivals(self) -> list[SimulatedRequest]:
        """The calls of the trace at their times."""
        return [
            SimulatedRequest(call.at_s * self._workload.pace, 0.0, self.routers[0], payload=call)
            for call in self._workload.calls
        ]

    def route(self, request: SimulatedRequest) -> None:
        """Choose by the expected work on each instance, and let the cache decide the real one."""
        call = request.payload
        assert isinstance(call, TracedCall)
        router = self.routers[0]
        sizes = {
            member.id: self._expected_s(call, member) / router.fleet.service_s
            for member in router.fleet.members
        }
        if self._affine:
            request.features = RequestFeatures(sizes=sizes)
        choice = choose(router.fleet, router.strategy, request.features, self.now_s, router.rng)
        assert isinstance(choice, Chosen)
        if self._affine:
            request.work = sizes[choice.member.id]
        self._serve(request, call, choice.member)

    def _expected_s(self, call: TracedCall, member: Member) -> float:
        missing = len(call.blocks) - self._index.matched(member.id, call.blocks)
        return self._workload.seconds(missing, self._mean_output)

    def _serve(self, request: SimulatedRequest, call: TracedCall, member: Member) -> None:
        cached = self._caches.matched(member.id, call.blocks)
        self.hits.append(cached)
        self._caches.sent(member.id, call.blocks)
        self._index.sent(member.id, call.blocks)
        request.size_s = self._workload.seconds(len(call.blocks) - cached, call.output_tokens)
        self.work_s += request.size_s
        self.send(request, member)


def infinite_hits(calls: Sequence[TracedCall]) -> list[int]:
    """Block hits of each call in one shared cache that forgets nothing."""
    seen: set[int] = set()
    hits = []
    for call in calls:
        known = itertools.takewhile(seen.__contains__, call.blocks)
        hits.append(sum(1 for _ in known))
        seen.update(call.blocks)
    return hits


def measure(options: Options) -> dict[str, Reuse]:
    """Each way of choosing on the same trace, at a pace of 70 % load without affinity."""
    calls = read_calls(options)[: 1500 if options.quick else None]
    ideal = infinite_hits(calls)
    pace = _pace(calls)
    results = {}
    for name, strategy, affine in (
        ("affinity", "least_added_delay", True),
        ("no affinity", "least_added_delay", False),
        ("least requests", "least_requests", False),
        ("round robin", "round_robin", False),
    ):
        fleet = _run(calls, strategy, pace, affine=affine)
        latencies = [each_s / SERVICE_S for _, each_s in sorted(fleet.log.latencies_s)]
        results[name] = Reuse(fleet.hits, ideal, latencies)
    return results


def _run(calls: Sequence[TracedCall], strategy: str, pace: float, *, affine: bool) -> PrefixFleet:
    scenario = Scenario(
        (1.0,) * INSTANCES, 1.0, math.inf, slots=1, learning=replace(LEARNING, calm_band=0.0)
    )
    workload = Workload(calls, pace, SERVICE_S / TYPICAL_COST)
    fleet = PrefixFleet(scenario, strategy, workload, affine=affine)
    fleet.run()
    return fleet


def _pace(calls: Sequence[TracedCall]) -> float:
    """How much slower than recorded the calls must come for the load; found by iteration."""
    span_s = calls[-1].at_s - calls[0].at_s
    pace = 1.0
    for _ in range(PACE_ROUNDS):
        work_s = _run(calls, "least_added_delay", pace, affine=False).work_s
        pace = work_s / (LOAD * INSTANCES * span_s)
    return pace
