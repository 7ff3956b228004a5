"""The hop at its best: one unary grpc.aio call a request against the multiplexed item stream.

Client and server are two processes; the same echo answers both. The request is small (63 bytes of
text) and the answer nearly empty, so that nothing but the hop is measured. The two sides take turns
in rounds; a figure is the median over the rounds of the ratio within one round. CPU is that of both
processes for each answer, the load's own included.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.bench.harness.echo import SLOW, TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import LoadResult, Send, closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import cpu_s
from penstock.bench.harness.report import Bound, Result, Table
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.program import loop_factory
from penstock.testkit.instance import INFERENCE

CALLERS = 64
WARM_UP_S = 0.3
SLOW_EVERY = 100
"""In mixed load, one request in so many is slow."""
TEXT = "where is the order that I placed last Tuesday with number 48213"
REQUEST = inference_pb2.ComputeRequest(
    model="m", task=inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[TEXT]))
)
SLOW_REQUEST = inference_pb2.ComputeRequest(model=SLOW)
BOUNDS = {
    "stream_vs_unary_rps": Bound(">=", 8),
    "stream_cpu_vs_unary": Bound("<=", 0.14),
    "stream_p50_vs_unary_at_1": Bound("<=", 1.1),
    "mixed_fast_p50_ratio": Bound("<=", 2),
}
COLUMNS = (
    "unary rps",
    "stream rps",
    "unary CPU, µs",
    "stream CPU, µs",
    "unary p50 at 1, ms",
    "stream p50 at 1, ms",
    "fast p50 alone, ms",
    "fast p50 mixed, ms",
)


class Round(NamedTuple):
    """What one round measured; latencies in milliseconds, `_one` with a single caller."""

    unary_rps: float
    stream_rps: float
    unary_cpu_us: float
    stream_cpu_us: float
    unary_one_p50: float
    stream_one_p50: float
    fast_alone_p50: float
    fast_mixed_p50: float

    def figures(self) -> dict[str, float]:
        """What it says of each figure."""
        return {
            "unary_rps": self.unary_rps,
            "stream_rps": self.stream_rps,
            "stream_vs_unary_rps": self.stream_rps / self.unary_rps,
            "unary_cpu_us": self.unary_cpu_us,
            "stream_cpu_us": self.stream_cpu_us,
            "stream_cpu_vs_unary": self.stream_cpu_us / self.unary_cpu_us,
            "stream_p50_vs_unary_at_1": self.stream_one_p50 / self.unary_one_p50,
            "mixed_fast_p50_ratio": self.fast_mixed_p50 / self.fast_alone_p50,
        }


def run(options: Options) -> Result:
    """Measure."""
    rounds, seconds = (2, 0.3) if options.quick else (10, 2.0)
    with echo_process() as addresses, asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(_measure(addresses, rounds, seconds))
    figures = [row.figures() for row in rows]
    context = {
        "callers": CALLERS,
        "rounds": rounds,
        "seconds_a_side": seconds,
        "data": "one fixed request of 63 bytes of text",
    }
    table = Table("Rounds", COLUMNS, tuple(rows))
    intervals = bootstrap(figures, medians, "rounds")
    return Result(medians(figures), BOUNDS, context, (table,), intervals=intervals)


async def _measure(addresses: EchoAddresses, rounds: int, seconds: float) -> list[Round]:
    channel = open_channel(addresses.bare)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    peer = connect(addresses.endpoint, INFERENCE, token=TOKEN)
    call = Call()

    async def unary(_: int) -> object:
        return await stub.Compute(REQUEST)

    async def stream(_: int) -> object:
        return await peer.call("Compute", REQUEST, call)

    async def mixed(number: int) -> object:
        request = SLOW_REQUEST if _is_slow(number) else REQUEST
        return await peer.call("Compute", request, call)

    await closed_loop(unary, CALLERS, WARM_UP_S)
    await closed_loop(stream, CALLERS, WARM_UP_S)
    sides = (unary, stream, mixed)
    rows = [await _round(sides, seconds, addresses.pid) for _ in range(rounds)]
    await peer.close()
    await channel.close()
    return rows


def _is_slow(number: int) -> bool:
    return number % SLOW_EVERY == SLOW_EVERY - 1


class _Load(NamedTuple):
    rps: float
    cpu_us: float


async def _load(side: Send, seconds: float, server: int) -> _Load:
    """Load with CALLERS callers, and the CPU of this process and the server for each answer."""
    pids = (os.getpid(), server)
    before_s = sum(map(cpu_s, pids))
    loaded = await closed_loop(side, CALLERS, seconds)
    used_s = sum(map(cpu_s, pids)) - before_s
    return _Load(loaded.rps, used_s * 1e6 / len(loaded.latencies_ms))


async def _round(sides: Sequence[Send], seconds: float, server: int) -> Round:
    unary, stream, mixed = sides
    by_call, by_item = [await _load(side, seconds, server) for side in (unary, stream)]
    one = [await closed_loop(side, 1, seconds / 2) for side in (unary, stream)]
    both = await closed_loop(mixed, CALLERS, seconds)
    # The fast items alone get as many callers as they have in the mix, where the other callers wait
    # for slow items; so only the mixing differs.
    fast_callers = max(1, round(CALLERS - _callers_with_slow(both)))
    alone = await closed_loop(stream, fast_callers, seconds)
    fast_mixed_p50 = both.p50_ms(lambda number: not _is_slow(number))
    return Round(
        by_call.rps,
        by_item.rps,
        by_call.cpu_us,
        by_item.cpu_us,
        one[0].p50_ms(),
        one[1].p50_ms(),
        alone.p50_ms(),
        fast_mixed_p50,
    )


def _callers_with_slow(mixed: LoadResult) -> float:
    """Mean number of callers that wait for a slow item (Little's law)."""
    slow_ms = sum(ms for number, ms in mixed.latencies_ms.items() if _is_slow(number))
    seconds = len(mixed.latencies_ms) / mixed.rps
    return min(CALLERS - 1.0, slow_ms / 1e3 / seconds)
