"""The limiter: decisions a second from a lease, in the policy and through Redis; overshoot, leaked
holds; budgets under spikes of cost.

Overshoot, leaks and refunds: three limiter processes on one real Redis, and callers that are killed
between answer and settlement. Availability and overrun run the serving policy in virtual time on
the Azure conversation trace (`limiter_budget`), five seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path as Folder

import yaml
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.load import closed_loop, quantile
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.limiter import budget as limiter_budget
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
from penstock.rpc.errors import Fault
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.rpc.peers.stream import Peer, connect
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.program import loop_factory
from penstock.service.store import (
    EmbeddedStore,
    embedded_store,
    open_store,
    socket_folder,
    wait_ready,
)
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.process import Program, python_module
from penstock.stack.ready import ready
from penstock.stack.supervisor import Supervisor
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED
from rich.console import Console

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
TOKEN = "bench-token"
SIX = [
    {
        "name": "org",
        "kind": "budget",
        "counts": "microusd",
        "limit": 10**13,
        "window": "month",
        "calendar": True,
    },
    {
        "name": "team",
        "kind": "budget",
        "level": "team",
        "counts": "tokens",
        "limit": 10**13,
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
        "limit": 10**13,
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
]
CALLER = Call(Principal("acme", "core", "ann", "k1", ("batch",)), deadline_s=1e12)
REQUEST = ResolvedRequest(
    router_pb2.CallOptions(), EMBED, Task(), "m", Estimate(1, 20, 0, input_bound=100)
)
PRICES = PricesSection(models=(ModelPrice(name="m", input_microusd_per_mtok=20_000),))
STRICT = {
    "name": "strict",
    "kind": "budget",
    "counts": "microusd",
    "limit": 3_700_000,
    "window": "day",
    "calendar": True,
}
BOUNDS = {
    "overshoot": Bound("<=", 0),
    "leaked_holds": Bound("<=", 0),
    "refunded_spend": Bound("<=", 0),
    "decisions_per_s_lease": Bound(">=", 50_000),
    "decision_p99_us": Bound("<=", 50),
    "decisions_per_s_redis": Bound(">=", 5_000),
    "store_down_added_ms": Bound("<=", 5),
    "availability": Bound(">=", 0.99),
    "overrun_cut": Bound(">=", 0.85),
    "overrun_cut_strict": Bound(">=", 1.0),
}


def run(options: Options) -> Result:
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        figures |= runner.run(_in_process(Folder(folder) / "a", options.quick))
        figures |= runner.run(_store_down(Folder(folder) / "b", options.quick))
        figures |= runner.run(_processes(Folder(folder) / "c", options.quick))
    budget, table = _budgets(options)
    figures |= budget
    context = {
        "data": options.source("azure-llm-2023"),
        "rules": "6 levels: 3 budgets (2 calendar, 1 rolling), 3 rates",
        "redis": "6.2, append-only file, fsync always, unix socket",
        "grpc": "item stream, open loop",
    }
    return Result(figures, BOUNDS, context, (table,))


def _section(rules: Sequence[dict[str, object]]) -> LimitsSection:
    return LimitsSection.model_validate({"rules": list(rules)})


async def _in_process(folder: Folder, quick: bool) -> dict[str, float]:
    """Admissions from a held lease, one thread; and reservations through the servicer and a real
    Redis, 64 at a time.
    """
    async with embedded_store(folder) as url:
        client, clock = open_store(url, retries=0), SystemClock()
        store = LedgerStore(client, clock, StoreTimings(timeout_s=5.0))
        limiter = LimiterServicer(LimiterSettings(), _section(SIX), PRICES, store, clock)
        admission = LimiterAdmission(
            InProcessPeer(LIMITER, limiter, clock=clock),
            Current(Prices.from_section(PRICES)),
            clock,
        )
        rates = [
            await _admissions(admission, 500 if quick else 5_000) for _ in range(3 if quick else 20)
        ]
        single = await _single(admission, 2_000 if quick else 50_000)
        await admission.close()
        request = pb.ReserveRequest(
            model="m", amount=pb.Amount(requests=1, tokens=120, microusd=50)
        )

        async def reserve(number: int) -> object:
            mine = pb.ReserveRequest()
            mine.CopyFrom(request)
            mine.hold_id = f"h{number}"
            answer = await limiter.Reserve(mine, CALLER)
            assert answer.decision.verdict == pb.VERDICT_ALLOWED, answer
            return answer

        measured = await closed_loop(reserve, 64, 0.5 if quick else 5.0)
        await store.close()
    return {
        "decisions_per_s_lease": statistics.median(rates),
        "decisions_per_s_redis": measured.rps,
        **single,
    }


async def _admissions(admission: LimiterAdmission, count: int) -> float:
    await perform(admission.settle(await admission.admit(CALLER, REQUEST), None, None))
    began = time.perf_counter()
    admitted = [await admission.admit(CALLER, REQUEST) for _ in range(count)]
    taken = time.perf_counter() - began
    for one in admitted:
        await perform(admission.settle(one, None, None))
    return count / taken


async def _single(admission: LimiterAdmission, count: int) -> dict[str, float]:
    """Time of single admissions from a held lease, each settled before the next, untimed."""
    taken = list[float]()
    for _ in range(count):
        began = time.perf_counter()
        admitted = await admission.admit(CALLER, REQUEST)
        taken.append((time.perf_counter() - began) * 1e6)
        await perform(admission.settle(admitted, None, None))
    return {"decision_p99_us": quantile(taken, 0.99), "decision_p50_us": statistics.median(taken)}


async def _store_down(folder: Folder, quick: bool) -> dict[str, float]:
    """What a decision takes before and after the store is killed, and while it hangs: rules that
    are open then, 200 decisions a second.
    """
    sockets = socket_folder()
    server = EmbeddedStore(folder, sockets / "r.sock")
    folder.mkdir(parents=True)
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    client, clock = open_store(server.url, timeout_s=1.0, retries=0), SystemClock()
    try:
        await wait_ready(client, process)
        settings = LimiterSettings()
        store = LedgerStore(client, clock, settings.store_timings())
        rules = [{**rule, "store_loss": "open"} for rule in SIX]
        limiter = LimiterServicer(settings, _section(rules), PricesSection(), store, clock)
        seconds = 1.0 if quick else 5.0
        up = await _paced(limiter, "u", 200, seconds)
        process.send_signal(signal.SIGSTOP)
        hung = await _paced(limiter, "h", 200, seconds)
        process.kill()
        killed = await _paced(limiter, "k", 200, seconds)
    finally:
        process.kill()
        process.wait()
        await store.close()
    before = quantile(up, 0.99)
    return {
        "store_down_added_ms": max(0.0, quantile(killed, 0.99) - before),
        "store_hung_added_ms": max(0.0, quantile(hung, 0.99) - before),
        "store_down_worst_ms": max(killed),
        "store_hung_worst_ms": max(hung),
    }


async def _paced(limiter: LimiterServicer, name: str, per_s: int, seconds: float) -> list[float]:
    taken: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        request = pb.ReserveRequest(
            hold_id=f"{name}{number}", model="m", amount=pb.Amount(requests=1, tokens=9)
        )
        await limiter.Reserve(request, CALLER)
        taken.append((time.perf_counter() - began) * 1e3)

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * seconds)):
            group.create_task(one(number))
            await asyncio.sleep(1 / per_s)
    return taken


@contextlib.asynccontextmanager
async def _three(
    folder: Folder, rules: Sequence[dict[str, object]]
) -> AsyncIterator[tuple[list[str], str]]:
    """Three limiter processes on one Redis: their addresses and the store's URL."""
    folder.mkdir(parents=True)
    file = folder / "limits.yaml"
    file.write_text(yaml.safe_dump({"limits": {"rules": list(rules)}}))
    supervisor = Supervisor(LogStream(Console(stderr=True), quiet=True), ready)
    async with embedded_store(folder / "redis") as url:
        addresses = [list(ports.free().values())[index] for index in range(3)]
        env = {
            "PENSTOCK_REDIS_URL": url,
            "PENSTOCK_CONFIG_FILE": str(file),
            "PENSTOCK_INTERNAL_TOKEN": TOKEN,
            "PENSTOCK_HOLD_MS": "2000",
            "PENSTOCK_LEASE_MS": "2000",
            "PENSTOCK_OTLP_ENDPOINT": "",
            "PENSTOCK_STORE_TIMEOUT_MS": "2000",
        }
        programs = [
            Program(
                f"limiter-{number}",
                python_module("penstock.limiter"),
                {**env, "PENSTOCK_LISTEN": address},
                address,
            )
            for number, address in enumerate(addresses)
        ]
        try:
            await supervisor.start(tuple(programs))
            yield addresses, url
        finally:
            await supervisor.stop()


async def _processes(folder: Folder, quick: bool) -> dict[str, float]:
    async with _three(folder, [STRICT]) as (addresses, _):
        peers = [connect(address, LIMITER, token=TOKEN) for address in addresses]
        overshoot = await _overshoot(peers)
        leaked, refunded = await _deaths(peers, addresses[0])
        p99 = await _paced_grpc(peers[0], 200 if quick else 1_000, 1.0 if quick else 6.0)
        for peer in peers:
            await peer.close()
    return {
        "overshoot": overshoot,
        "leaked_holds": leaked,
        "refunded_spend": refunded,
        "grpc_p99_ms": p99,
    }


async def _usage(peer: Peer, organisation: str) -> pb.RuleUsage:
    answer: pb.GetUsageResponse = await peer.call(
        "GetUsage", pb.GetUsageRequest(), Call(Principal(organisation))
    )
    return answer.rules[0]


async def _overshoot(peers: Sequence[Peer]) -> float:
    """A thousand reservations of ten thousand micro-dollars at once on three limiters, for a budget
    that pays 370.
    """
    caller = Call(Principal("rush"))

    async def one(number: int) -> int:
        request = pb.ReserveRequest(
            hold_id=f"r{number}", amount=pb.Amount(requests=1, microusd=10_000)
        )
        answer: pb.ReserveResponse = await peers[number % 3].call("Reserve", request, caller)
        return int(answer.decision.verdict == pb.VERDICT_ALLOWED)

    passed = sum(await asyncio.gather(*(one(number) for number in range(1_000))))
    row = await _usage(peers[0], "rush")
    assert passed == 370, passed  # the budget is used to its last call
    return float(
        max(
            0,
            passed * 10_000 - row.limit.microusd,
            row.held.microusd + row.committed.microusd - row.limit.microusd,
        )
    )


async def _deaths(peers: Sequence[Peer], address: str) -> tuple[float, float]:
    """Holds left and spend given back after callers were cancelled in mass, and one was killed
    between answer and settlement.
    """
    script = [sys.executable, "-m", "penstock.bench.limiter.victim", address, TOKEN]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=os.environ) as victim:
        assert victim.stdout is not None
        line = await asyncio.to_thread(victim.stdout.readline)
        victim.kill()
    answered_inputs, lease_spent = (int(word) for word in line.split())
    caller = Call(Principal("fickle"))
    requests = [
        pb.ReserveRequest(
            hold_id=f"c{number}",
            amount=pb.Amount(requests=1, microusd=900),
            least=pb.Amount(microusd=100),
        )
        for number in range(500)
    ]
    tasks = [
        asyncio.create_task(peers[number % 3].call("Reserve", request, caller))
        for number, request in enumerate(requests)
    ]
    await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(3.0)  # past the expiry of holds and leases
    rows = {name: await _usage(peers[1], name) for name in ("victim", "leaser", "fickle")}
    leaked = sum(row.held.microusd for row in rows.values())
    short = max(0, answered_inputs - rows["victim"].committed.microusd) + max(
        0, lease_spent - rows["leaser"].committed.microusd
    )
    return float(leaked), float(short)


async def _paced_grpc(peer: Peer, per_s: int, seconds: float) -> float:
    """p99 of a reserve over the item stream at a steady pace, in milliseconds."""
    taken: list[float] = []
    caller = Call(Principal("steady"))

    async def one(number: int) -> None:
        began = time.perf_counter()
        request = pb.ReserveRequest(hold_id=f"p{number}", amount=pb.Amount(requests=1, microusd=1))
        with contextlib.suppress(Fault):
            await peer.call("Reserve", request, caller)
        taken.append((time.perf_counter() - began) * 1e3)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * seconds)):
            group.create_task(one(number))
            await asyncio.sleep(max(0.0, began + (number + 1) / per_s - time.perf_counter()))
    return quantile(taken, 0.99)


def _budgets(options: Options) -> tuple[dict[str, float], Table]:
    """Five seeds of spikes: the fixed limit of requests, and our rule with expected and with strict
    holds. The medians count.
    """
    rows = _trace(options)
    budget, found = limiter_budget.budget_of(rows), list[tuple[float, ...]]()
    for seed in range(1 if options.quick else 5):
        calls = limiter_budget.arrivals(rows, seed)
        fixed = limiter_budget.fixed_requests(calls, budget, rows)
        expected, strict = (
            limiter_budget.limited(calls, budget, holds) for holds in ("expected", "strict")
        )
        base = max(1, fixed.overrun(budget))
        found.append(
            (
                seed,
                base / budget,
                fixed.share(4),
                1 - expected.overrun(budget) / base,
                expected.share(4),
                expected.share(1),
                1 - strict.overrun(budget) / base,
                strict.share(4),
            )
        )
    columns = (
        "seed",
        "overrun of fixed requests, budgets",
        "its critical served",
        "cut, expected",
        "critical served",
        "low served",
        "cut, strict",
        "critical served, strict",
    )
    median = [statistics.median(column) for column in zip(*found, strict=True)]
    figures = {
        "availability": min(row[4] for row in found),
        "overrun_cut": median[3],
        "overrun_cut_strict": min(row[6] for row in found),
        "availability_strict": min(row[7] for row in found),
        "low_served": median[5],
    }
    return figures, Table("Budgets of a minute under spikes of cost", columns, tuple(found))


def _trace(options: Options) -> list[tuple[float, int, int]]:
    if options.data is None or options.source("azure-llm-2023") == "generated":
        rng = random.Random(3)
        times = [number / 5.5 for number in range(4_000)]
        return [
            (
                at,
                round(rng.lognormvariate(6.5, 1.0)),
                min(1_000, round(rng.lognormvariate(4.7, 1.0)) + 1),
            )
            for at in times
        ]
    with (options.data / "azure-llm-2023" / "conv.csv").open(newline="") as file:
        rows = [
            (
                datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(file)
        ]
    return [(at - rows[0][0], read, said) for at, read, said in rows]
