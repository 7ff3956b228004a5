"""Decisions of the limiter in this process: from a lease, through Redis, and without a store."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path as Folder
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.intervals import (
    Interval,
    blocks_of,
    bootstrap,
    medians,
    pooled_quantile,
)
from penstock.bench.harness.load import closed_loop
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.requests.resolved import ResolvedRequest, Task
from penstock.router.stages import perform
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.socket_paths import socket_folder
from penstock.service.store import (
    EmbeddedStore,
    embedded_store,
    open_store,
    wait_ready,
)
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED
from penstock.testkit.server import peer_to

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
CALLERS = 64
RATE_PER_S = 200
RESERVATION_ROUNDS = 8
LATENCY_BLOCKS = 20
"""Blocks of consecutive decisions that the intervals of latencies are over."""
NEVER_REACHED = 10**13
RULES: tuple[dict[str, object], ...] = (
    {
        "name": "org",
        "kind": "budget",
        "counts": "microusd",
        "limit": NEVER_REACHED,
        "window": "month",
        "calendar": True,
    },
    {
        "name": "team",
        "kind": "budget",
        "level": "team",
        "counts": "tokens",
        "limit": NEVER_REACHED,
        "window": "day",
        "calendar": True,
    },
    {
        "name": "user",
        "kind": "rate",
        "level": "user",
        "counts": "requests",
        "limit": 10**9,
        "window": "minute",
    },
    {
        "name": "key",
        "kind": "rate",
        "level": "key",
        "counts": "tokens",
        "limit": 10**11,
        "window": "minute",
    },
    {
        "name": "model",
        "kind": "budget",
        "level": "model",
        "counts": "tokens",
        "limit": NEVER_REACHED,
        "window": "hour",
    },
    {
        "name": "tag",
        "kind": "rate",
        "level": "tag",
        "counts": "requests",
        "limit": 10**9,
        "window": "second",
    },
)
"""One rule on each of six levels; none of them refuses here."""
CALLER = Call(Principal("acme", "core", "ann", "k1", ("batch",)), deadline_s=1e12)
REQUEST = ResolvedRequest(
    router_pb2.CallOptions(), EMBED, Task(), "m", Estimate(1, 20, 0, input_bound=100)
)
PRICES = PricesSection(models=(ModelPrice(name="m", input_microusd_per_mtok=20_000),))


def _section(rules: Sequence[dict[str, object]]) -> LimitsSection:
    return LimitsSection.model_validate({"rules": list(rules)})


class Measured(NamedTuple):
    """Figures and their intervals."""

    figures: dict[str, float]
    intervals: dict[str, Interval]


async def decisions(folder: Folder, quick: bool) -> Measured:
    """Admissions from a held lease on one thread, and reservations in Redis, 64 at a time."""
    async with embedded_store(folder) as url:
        client = open_store(url, retries=0)
        clock = SystemClock()
        store = LedgerStore(client, clock, StoreTimings(timeout_s=5.0))
        limiter = LimiterServicer(LimiterSettings(), _section(RULES), PRICES, store, clock)
        admission = LimiterAdmission(
            peer_to(LIMITER, limiter, clock),
            Current(Prices.from_section(PRICES)),
            clock,
        )
        count, repetitions = (500, 3) if quick else (5_000, 20)
        rates = [await _admissions_per_s(admission, count) for _ in range(repetitions)]
        took_us = await _admission_latency(admission, 2_000 if quick else 50_000)
        await admission.close()
        reservations_per_s = [
            await _reservations_per_s(limiter, round_, 0.5 if quick else 1.0)
            for round_ in range(1 if quick else RESERVATION_ROUNDS)
        ]
        await store.close()
    lease = [{"decisions_per_s_lease": rate} for rate in rates]
    redis = [{"decisions_per_s_redis": rate} for rate in reservations_per_s]
    took = blocks_of(took_us, LATENCY_BLOCKS)
    return Measured(
        medians(lease) | medians(redis) | _admission_figures(took),
        bootstrap(lease, medians, "rounds")
        | bootstrap(redis, medians, "rounds")
        | bootstrap(took, _admission_figures, f"blocks of {len(took[0])} decisions", 1_000),
    )


async def _admissions_per_s(admission: LimiterAdmission, count: int) -> float:
    # The first admission gets the lease.
    await perform(admission.settle(await admission.admit(CALLER, REQUEST), None, None))
    began_s = time.perf_counter()
    admitted = [await admission.admit(CALLER, REQUEST) for _ in range(count)]
    took_s = time.perf_counter() - began_s
    for one in admitted:
        await perform(admission.settle(one, None, None))
    return count / took_s


async def _admission_latency(admission: LimiterAdmission, count: int) -> list[float]:
    """Microseconds of single admissions from a held lease; each is settled, untimed, before the
    next.
    """
    took_us: list[float] = []
    for _ in range(count):
        began_s = time.perf_counter()
        admitted = await admission.admit(CALLER, REQUEST)
        took_us.append((time.perf_counter() - began_s) * 1e6)
        await perform(admission.settle(admitted, None, None))
    return took_us


def _admission_figures(blocks: Sequence[Sequence[float]]) -> dict[str, float]:
    return {
        "decision_p99_us": pooled_quantile(blocks, 0.99),
        "decision_p50_us": pooled_quantile(blocks, 0.5),
    }


async def _reservations_per_s(limiter: LimiterServicer, round_: int, seconds: float) -> float:
    amount = pb.Amount(requests=1, tokens=120, microusd=50)

    async def reserve(number: int) -> object:
        request = pb.ReserveRequest(hold_id=f"h{round_}-{number}", model="m", amount=amount)
        answer = await limiter.Reserve(request, CALLER)
        assert answer.decision.verdict == pb.VERDICT_ALLOWED, answer
        return answer

    return (await closed_loop(reserve, CALLERS, seconds)).rps


async def store_down(folder: Folder, quick: bool) -> Measured:
    """What decisions take while the store works, while it hangs, and after it was killed.

    All rules are open without a store; 200 decisions a second.
    """
    with socket_folder() as sockets:
        server = EmbeddedStore(folder, sockets / "r.sock")
        folder.mkdir(parents=True)
        process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
        client = open_store(server.url, timeout_s=1.0, retries=0)
        clock = SystemClock()
        try:
            await wait_ready(client, process)
            settings = LimiterSettings()
            store = LedgerStore(client, clock, settings.store_timings())
            rules = [{**rule, "store_loss": "open"} for rule in RULES]
            limiter = LimiterServicer(settings, _section(rules), PricesSection(), store, clock)
            seconds = 1.0 if quick else 5.0
            up_ms = await _paced(limiter, "u", seconds)
            process.send_signal(signal.SIGSTOP)
            hung_ms = await _paced(limiter, "h", seconds)
            process.kill()
            killed_ms = await _paced(limiter, "k", seconds)
        finally:
            process.kill()
            process.wait()
            await store.close()
    blocks = [
        dict(zip(("up", "hung", "killed"), block, strict=True))
        for block in zip(
            *(blocks_of(took_ms, LATENCY_BLOCKS) for took_ms in (up_ms, hung_ms, killed_ms)),
            strict=True,
        )
    ]
    worst = {"store_down_worst_ms": max(killed_ms), "store_hung_worst_ms": max(hung_ms)}
    of = f"blocks of {len(blocks[0]['up'])} decisions"
    return Measured(_added(blocks) | worst, bootstrap(blocks, _added, of))


def _added(blocks: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """How much longer the slowest hundredth takes without a store, and with one that hangs."""
    p99_ms = {
        side: pooled_quantile([block[side] for block in blocks], 0.99)
        for side in ("up", "hung", "killed")
    }
    return {
        "store_down_added_ms": max(0.0, p99_ms["killed"] - p99_ms["up"]),
        "store_hung_added_ms": max(0.0, p99_ms["hung"] - p99_ms["up"]),
    }


async def _paced(limiter: LimiterServicer, prefix: str, seconds: float) -> list[float]:
    """Milliseconds of each reservation at a steady rate."""
    took_ms: list[float] = []

    async def reserve(number: int) -> None:
        began_s = time.perf_counter()
        amount = pb.Amount(requests=1, tokens=9)
        request = pb.ReserveRequest(hold_id=f"{prefix}{number}", model="m", amount=amount)
        await limiter.Reserve(request, CALLER)
        took_ms.append((time.perf_counter() - began_s) * 1e3)

    async with asyncio.TaskGroup() as group:
        for number in range(int(RATE_PER_S * seconds)):
            group.create_task(reserve(number))
            await asyncio.sleep(1 / RATE_PER_S)
    return took_ms
