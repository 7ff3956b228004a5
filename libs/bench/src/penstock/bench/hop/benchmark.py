"""The hop: a plain grpc.aio call each against the multiplexed item stream, client and server in two
processes.

The same echo answers both. Rounds of the two sides alternate; each figure is the median over the
rounds of the ratio inside one round.
"""

from __future__ import annotations

import asyncio
import statistics

from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.bench.harness.echo import SERVICE, SLOW, TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.load import Ask, Measured, closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.program import loop_factory

CALLERS = 64
TEXT = "where is the order that I placed last Tuesday with number 48213"
REQUEST = inference_pb2.ComputeRequest(
    model="m", task=inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[TEXT]))
)
SLOW_REQUEST = inference_pb2.ComputeRequest(model=SLOW)


def run(options: Options) -> Result:
    rounds, seconds = (2, 0.3) if options.quick else (7, 2.0)
    with echo_process() as addresses, asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(_measure(addresses, rounds, seconds))
    columns = list(zip(*rows, strict=True))
    unary, stream, unary_one, stream_one, fast_alone, fast_mixed = (
        list(column) for column in columns
    )
    figures = {
        "unary_rps": statistics.median(unary),
        "stream_rps": statistics.median(stream),
        "stream_vs_unary_rps": _ratio(stream, unary),
        "stream_p50_vs_unary_at_1": _ratio(stream_one, unary_one),
        "mixed_fast_p50_ratio": _ratio(fast_mixed, fast_alone),
    }
    bounds = {
        "stream_vs_unary_rps": Bound(">=", 8),
        "stream_p50_vs_unary_at_1": Bound("<=", 1.1),
        "mixed_fast_p50_ratio": Bound("<=", 2),
    }
    table = Table(
        "Rounds",
        (
            "unary rps",
            "stream rps",
            "unary p50 at 1, ms",
            "stream p50 at 1, ms",
            "fast p50 alone, ms",
            "fast p50 mixed, ms",
        ),
        tuple(tuple(row) for row in rows),
    )
    context = {
        "callers": CALLERS,
        "rounds": rounds,
        "seconds_a_side": seconds,
        "data": "one fixed request of 63 bytes of text",
    }
    return Result(figures, bounds, context, (table,))


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


async def _measure(
    addresses: EchoAddresses, rounds: int, seconds: float
) -> list[tuple[float, ...]]:
    channel = open_channel(addresses.bare)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    peer = connect(addresses.door, SERVICE, token=TOKEN)
    call = Call()

    async def unary(_: int) -> object:
        return await stub.Compute(REQUEST)

    async def stream(_: int) -> object:
        return await peer.call("Compute", REQUEST, call)

    async def mixed(number: int) -> object:
        return await peer.call("Compute", SLOW_REQUEST if number % 100 == 99 else REQUEST, call)

    await closed_loop(unary, CALLERS, 0.3)
    await closed_loop(stream, CALLERS, 0.3)
    rows = [await _round((unary, stream, mixed), seconds) for _ in range(rounds)]
    await peer.close()
    await channel.close()
    return rows


async def _round(sides: tuple[Ask, Ask, Ask], seconds: float) -> tuple[float, ...]:
    unary, stream, mixed = sides
    many: list[Measured] = [await closed_loop(side, CALLERS, seconds) for side in (unary, stream)]
    one = [await closed_loop(side, 1, seconds / 2) for side in (unary, stream)]
    both = await closed_loop(mixed, CALLERS, seconds)
    # Fast items alone at the number of fast callers that remain while the slow ones wait, so that
    # only the mixing differs.
    fast_callers = max(1, round(CALLERS - _slow_waiting(both)))
    alone = await closed_loop(stream, fast_callers, seconds)
    fast_p50 = both.p50_ms(lambda number: number % 100 != 99)
    return (many[0].rps, many[1].rps, one[0].p50_ms(), one[1].p50_ms(), alone.p50_ms(), fast_p50)


def _slow_waiting(mixed: Measured) -> float:
    """Mean number of callers that wait for a slow item (Little's law)."""
    slow_s = sum(value for number, value in mixed.latencies_ms.items() if number % 100 == 99) / 1e3
    seconds = len(mixed.latencies_ms) / mixed.rps
    return min(CALLERS - 1.0, slow_s / seconds)
