"""Three limiter processes on one Redis: overshoot, holds of callers that die, latency by gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path as Folder

import yaml
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.bench.harness.load import quantile
from penstock.bench.harness.processes import supervised
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.service.free_ports import free_addresses
from penstock.service.store import embedded_store
from penstock.stack.process import Program, python_module
from penstock.testkit.eventually import eventually

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
TOKEN = "bench-token"
LIMITERS = 3
EXPIRY_MS = 2_000
AFTER_EXPIRY_S = 3.0
STORE_WAIT_S = 60.0
RUSH_REQUESTS, RUSH_PRICE_MICROUSD, PAID_REQUESTS = 1_000, 10_000, 370
CANCELLED_REQUESTS = 500
BUDGET = {
    "name": "strict",
    "kind": "budget",
    "counts": "microusd",
    "limit": PAID_REQUESTS * RUSH_PRICE_MICROUSD,
    "window": "day",
    "calendar": True,
}


async def measure(folder: Folder, quick: bool) -> dict[str, float]:
    """Overshoot, leaked holds, refunded spending, and p99 of a reservation."""
    async with _limiters(folder) as addresses:
        peers = [connect(address, LIMITER, token=TOKEN) for address in addresses]
        overshoot = await _overshoot(peers)
        leaked, refunded = await _deaths(peers, addresses[0])
        rate_per_s, seconds = (200, 1.0) if quick else (1_000, 6.0)
        p99_ms = await _paced_p99_ms(peers[0], rate_per_s, seconds)
        for peer in peers:
            await peer.close()
    return {
        "overshoot": overshoot,
        "leaked_holds": leaked,
        "refunded_spend": refunded,
        "grpc_p99_ms": p99_ms,
    }


@contextlib.asynccontextmanager
async def _limiters(folder: Folder) -> AsyncIterator[list[str]]:
    """The addresses of three limiter processes on one Redis."""
    folder.mkdir(parents=True)
    file = folder / "limits.yaml"
    file.write_text(yaml.safe_dump({"limits": {"rules": [BUDGET]}}))
    async with embedded_store(folder / "redis") as url, supervised() as supervisor:
        addresses = free_addresses(LIMITERS)
        variables = {
            "PENSTOCK_LEDGER_URL": url,
            "PENSTOCK_CONFIG_FILE": str(file),
            "PENSTOCK_INTERNAL_TOKEN": TOKEN,
            "PENSTOCK_HOLD_MS": str(EXPIRY_MS),
            "PENSTOCK_LEASE_MS": str(EXPIRY_MS),
            "PENSTOCK_OTLP_ENDPOINT": "",
            "PENSTOCK_STORE_TIMEOUT_MS": "2000",
        }
        command = python_module("penstock.limiter")
        programs = [
            Program(
                f"limiter-{number}", command, {**variables, "PENSTOCK_LISTEN": address}, address
            )
            for number, address in enumerate(addresses)
        ]
        await supervisor.start(tuple(programs))
        yield addresses


async def _usage(peer: Peer, organisation: str) -> pb.RuleUsage:
    """What an organisation has spent and holds; a store that is slow on a busy machine is waited
    for.
    """

    async def asked() -> pb.GetUsageResponse:
        answer: pb.GetUsageResponse = await peer.call(
            "GetUsage", pb.GetUsageRequest(), Call(Principal(organisation))
        )
        return answer

    return (await eventually(asked, STORE_WAIT_S, not_yet=(Fault,))).rules[0]


async def _overshoot(peers: Sequence[Peer]) -> float:
    """Micro-dollars beyond a budget for 370 of 1,000 reservations that are made at once."""
    caller = Call(Principal("rush"))
    amount = pb.Amount(requests=1, microusd=RUSH_PRICE_MICROUSD)

    async def reserve(number: int) -> bool:
        request = pb.ReserveRequest(hold_id=f"r{number}", amount=amount)
        peer = peers[number % len(peers)]
        answer: pb.ReserveResponse = await peer.call("Reserve", request, caller)
        return answer.decision.verdict == pb.VERDICT_ALLOWED

    allowed = sum(await asyncio.gather(*(reserve(number) for number in range(RUSH_REQUESTS))))
    usage = await _usage(peers[0], "rush")
    assert allowed == PAID_REQUESTS, f"{allowed} reservations; the budget pays {PAID_REQUESTS}"
    reserved = allowed * RUSH_PRICE_MICROUSD - usage.limit.microusd
    booked = usage.held.microusd + usage.committed.microusd - usage.limit.microusd
    return float(max(0, reserved, booked))


async def _deaths(peers: Sequence[Peer], address: str) -> tuple[float, float]:
    """Micro-dollars of holds left, and of spending given back, after callers have died.

    One caller is killed between answer and settlement, many others are cancelled.
    """
    answered, leased = await _kill_victim(address)
    caller = Call(Principal("fickle"))
    requests = [
        pb.ReserveRequest(
            hold_id=f"c{number}",
            amount=pb.Amount(requests=1, microusd=900),
            least=pb.Amount(microusd=100),
        )
        for number in range(CANCELLED_REQUESTS)
    ]
    tasks = [
        asyncio.create_task(peers[number % len(peers)].call("Reserve", request, caller))
        for number, request in enumerate(requests)
    ]
    await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(AFTER_EXPIRY_S)
    usage = {name: await _usage(peers[1], name) for name in ("victim", "leaser", "fickle")}
    leaked = sum(row.held.microusd for row in usage.values())
    refunded = max(0, answered - usage["victim"].committed.microusd)
    refunded += max(0, leased - usage["leaser"].committed.microusd)
    return float(leaked), float(refunded)


async def _kill_victim(address: str) -> tuple[int, int]:
    """Run `victim` until it has spent, and kill it; what its calls and its lease have spent."""
    command = [sys.executable, "-m", "penstock.bench.limiter.victim", address, TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as victim:
        assert victim.stdout is not None
        line = await asyncio.to_thread(victim.stdout.readline)
        victim.kill()
    answered, leased = line.split()
    return int(answered), int(leased)


async def _paced_p99_ms(peer: Peer, rate_per_s: int, seconds: float) -> float:
    """p99 in milliseconds of a reservation over the item stream at a steady rate."""
    took_ms: list[float] = []
    caller = Call(Principal("steady"))

    async def reserve(number: int) -> None:
        began_s = time.perf_counter()
        request = pb.ReserveRequest(hold_id=f"p{number}", amount=pb.Amount(requests=1, microusd=1))
        with contextlib.suppress(Fault):
            await peer.call("Reserve", request, caller)
        took_ms.append((time.perf_counter() - began_s) * 1e3)

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate_per_s * seconds)):
            group.create_task(reserve(number))
            due_s = began_s + (number + 1) / rate_per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    return quantile(took_ms, 0.99)
