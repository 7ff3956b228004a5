"""Prefix reuse on a real trace, in virtual time: each instance holds a tenth of the distinct
blocks; the router keeps its own index.

The instances' caches are the truth (LRU over blocks of 512 tokens); the router sees only what it
has sent.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.bench.harness.options import Options
from penstock.router.calls.affinity import PrefixIndex
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Member
from penstock.router.routing.strategy import RequestFeatures
from penstock.simulation.fleet import SERVICE_S, Job, Simulation, World

INSTANCES = 16
HELD_SHARE = 0.1
LOAD = 0.7
BLOCK_COST, TOKEN_COST, FIXED_COST = 1.0, 0.01, 0.5
"""Work of a missing block of 512 input tokens, of an output token, and of any request; only their
ratio matters here.
"""


@dataclass(frozen=True)
class Record:
    """One call of the trace: when, which blocks, how much output."""

    at: float
    blocks: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Reuse:
    """What came of it: block hits over those of one infinite shared cache, and the 99th percentile
    in mean service times.
    """

    hit_rate: float
    p99: float


def records(options: Options) -> list[Record]:
    """The Mooncake conversation trace, or a generated one like it: sessions that grow turn by
    turn.
    """
    if options.data is None or options.source("mooncake") == "generated":
        return list(_generated())
    return list(_read(options.data / "mooncake" / "conversation_trace.jsonl"))


def _read(path: Path) -> Iterator[Record]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        yield Record(row["timestamp"] / 1000.0, tuple(row["hash_ids"]), row["output_length"])


def _generated() -> Iterator[Record]:
    rng = random.Random(7)
    fresh = iter(range(1, 1 << 40))
    sessions = [[0, next(fresh)] for _ in range(200)]
    for number in range(3000):
        session = sessions[rng.randrange(len(sessions))]
        session.extend(next(fresh) for _ in range(rng.randrange(1, 4)))
        yield Record(number * 0.3, tuple(session), rng.randrange(20, 600))
        if len(session) > 40:
            session[1:] = [next(fresh)]


class PrefixFleet(Simulation):
    """The same fleet, with a cache in each instance, and a router that knows where it sent which
    blocks.
    """

    def __init__(
        self,
        world: World,
        strategy: str,
        trace: Sequence[Record],
        scale: tuple[float, float],
        affine: bool,
    ) -> None:
        super().__init__(world, strategy)
        self._trace = trace
        self._pace, self._unit_s = scale
        distinct = len({block for record in trace for block in record.blocks})
        self._held = PrefixIndex(max(1, int(HELD_SHARE * distinct)))
        self._index = PrefixIndex(max(1, int(HELD_SHARE * distinct)))
        self._affine = affine
        self._mean_output = sum(record.output_tokens for record in trace) / len(trace)
        self.hits = 0
        self.work_s = 0.0

    def _arrivals(self) -> list[Job]:
        return [Job(item.at * self._pace, 0.0, self.routers[0], mark=item) for item in self._trace]

    def _route(self, job: Job) -> None:
        record, fleet = job.mark, self.routers[0].fleet
        assert isinstance(record, Record)
        sizes = {
            member.id: self._seconds(
                len(record.blocks) - self._index.matched(member.id, record.blocks),
                self._mean_output,
            )
            / fleet.service_s
            for member in fleet.members
        }
        if self._affine:
            job.features = RequestFeatures(sizes=sizes)
        router = self.routers[0]
        choice = choose(fleet, router.strategy, job.features, self.now, router.rng)
        assert isinstance(choice, Chosen)
        self._serve(job, record, choice.member, sizes)

    def _serve(self, job: Job, record: Record, member: Member, sizes: dict[str, float]) -> None:
        found = self._held.matched(member.id, record.blocks)
        self.hits += found
        self._held.sent(member.id, record.blocks)
        self._index.sent(member.id, record.blocks)
        job.size = self._seconds(len(record.blocks) - found, record.output_tokens)
        job.work = sizes[member.id] if self._affine else 1.0
        self.work_s += job.size
        self._send(job, member)

    def _seconds(self, missing: float, output_tokens: float) -> float:
        return self._unit_s * (FIXED_COST + BLOCK_COST * missing + TOKEN_COST * output_tokens)


def infinite_hits(trace: Sequence[Record]) -> int:
    """Block hits of one cache that everybody shares and that forgets nothing."""
    seen: set[int] = set()
    hits = 0
    for record in trace:
        for block in record.blocks:
            if block not in seen:
                break
            hits += 1
        seen.update(record.blocks)
    return hits


def measure(options: Options) -> dict[str, Reuse]:
    """Each way of choosing on the same trace at the same pace: 70 % load as it is without
    affinity.
    """
    trace = records(options)[: 1500 if options.quick else None]
    ideal = infinite_hits(trace)
    unit_s = SERVICE_S / (FIXED_COST + 20.0)
    world = World(
        (1.0,) * INSTANCES, 1.0, math.inf, slots=1, learning=replace(LEARNING, calm_band=0.0)
    )

    def run(strategy: str, pace: float, affine: bool) -> PrefixFleet:
        fleet = PrefixFleet(world, strategy, trace, (pace, unit_s), affine)
        fleet.run()
        return fleet

    span_s = trace[-1].at - trace[0].at
    pace = 1.0
    for _ in range(3):
        work_s = run("least_added_delay", pace, False).work_s
        pace = work_s / (LOAD * INSTANCES * span_s)
    found = {}
    for name, strategy, affine in (
        ("affinity", "least_added_delay", True),
        ("no affinity", "least_added_delay", False),
        ("least requests", "least_requests", False),
        ("round robin", "round_robin", False),
    ):
        fleet = run(strategy, pace, affine)
        found[name] = Reuse(fleet.hits / max(1, ideal), fleet.log.quantile(0.99))
    return found
