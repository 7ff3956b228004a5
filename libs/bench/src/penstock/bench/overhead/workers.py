"""Two cells behind one address against one cell, on misses over many connections.

Two stacks that differ in nothing else take turns in rounds, with new connections in each round. One
instance is registered, so about half of the calls of the two cells pass from one cell to the other,
whose batcher owns the instance. CPU is that of all processes of the stack.

The kernel gives each connection to one of the cells by a hash of its addresses and ports, as if by
lot. Of 16 connections, 11 or more (over 65 %) then go to one of two cells in 21 % of all rounds, so
the figure is the median of the rounds; the largest one is in the table.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.harness.echo import EchoAddresses
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.parts import Part
from penstock.bench.harness.processes import accepted_connections, cpu_s
from penstock.bench.harness.report import Bound, Table
from penstock.bench.hop.benchmark import TEXT
from penstock.bench.overhead.stacks import MODEL, TENANT, Choices, instant_stack, processes_of
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack

CONNECTIONS = 16
WARM_UP_S = 0.5
ROUNDS, SECONDS = 7, 2.0
WORKERS = (1, 2)
BOUNDS = {
    "workers_cpu_per_call_ratio": Bound("<=", 1.1),
    "workers_largest_share": Bound("<=", 0.65),
}
COLUMNS = (
    "one cell: CPU ms",
    "two cells: CPU ms",
    "one cell: answers/s",
    "two cells: answers/s",
    "largest share of connections",
)


class WorkersRound(NamedTuple):
    """Misses over 16 new connections: one cell, then two."""

    one_cpu_ms: float
    two_cpu_ms: float
    """CPU of all processes for each answer."""
    one_rps: float
    two_rps: float
    largest_share: float
    """Connections that the busier of the two cells accepted, as a share of all."""

    def figures(self) -> dict[str, float]:
        """What it says of each figure."""
        return {
            "workers_cpu_per_call_ratio": self.two_cpu_ms / self.one_cpu_ms,
            "workers_rps_ratio": self.two_rps / self.one_rps,
            "workers_largest_share": self.largest_share,
        }


async def measure_workers(echo: EchoAddresses, *, quick: bool) -> Part:
    """Measure both, interleaved."""
    rounds, seconds = (2, 0.3) if quick else (ROUNDS, SECONDS)
    async with contextlib.AsyncExitStack() as owned:
        stacks = {
            workers: await owned.enter_async_context(instant_stack(echo, Choices(workers=workers)))
            for workers in WORKERS
        }
        for stack in stacks.values():
            await stack.wait_for_instances(MODEL, 1, TENANT)
            async with _misses_of(stack) as send:
                await closed_loop(send, CONNECTIONS, WARM_UP_S)
        rows = []
        for number in range(rounds):
            order = WORKERS if number % 2 else WORKERS[::-1]
            row = {workers: await _side(stacks[workers], seconds) for workers in order}
            one, two = row[1], row[2]
            rows.append(WorkersRound(one.cpu_ms, two.cpu_ms, one.rps, two.rps, two.share))
    figures = [row.figures() for row in rows]
    table = Table("misses of one cell and of two behind one address", COLUMNS, tuple(rows))
    intervals = bootstrap(figures, medians, "rounds")
    return Part(medians(figures), tables=(table,), intervals=intervals)


class _Side(NamedTuple):
    cpu_ms: float
    rps: float
    share: float


async def _side(stack: Stack, seconds: float) -> _Side:
    """Misses of one stack over connections of their own."""
    pids = processes_of(stack)
    others = _accepted(stack, pids)
    async with _misses_of(stack) as send:
        await closed_loop(send, CONNECTIONS, WARM_UP_S)
        before_s = sum(map(cpu_s, pids))
        loaded = await closed_loop(send, CONNECTIONS, seconds)
        used_s = sum(map(cpu_s, pids)) - before_s
        connections = _accepted(stack, pids) - others
    share = max(connections.values()) / connections.total()
    return _Side(used_s * 1e3 / len(loaded.latencies_ms), loaded.rps, share)


def _accepted(stack: Stack, pids: Sequence[int]) -> Counter[int]:
    """Connections at the router's address, by process."""
    address = stack.addresses["router"]
    return Counter({pid: accepted_connections(pid, address) for pid in pids})


@contextlib.asynccontextmanager
async def _misses_of(stack: Stack) -> AsyncIterator[Send]:
    """Sends requests with a new text each, over 16 connections in turn."""
    options = router_pb2.CallOptions(model=MODEL)
    metadata, numbers = stack.metadata(TENANT), itertools.count()
    run = next(_runs)
    async with contextlib.AsyncExitStack() as owned:
        stubs = []
        for _ in range(CONNECTIONS):
            channel = await owned.enter_async_context(open_channel(stack.addresses["router"]))
            stubs.append(router_pb2_grpc.RouterServiceStub(channel))

        async def miss(number: int) -> object:
            text = f"{TEXT} {run} {next(numbers)}"
            request = router_pb2.EmbedRequest(options=options, texts=[text])
            return await stubs[number % CONNECTIONS].Embed(request, metadata=metadata)

        yield miss


_runs = itertools.count()
