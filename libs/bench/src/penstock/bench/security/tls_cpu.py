"""What TLS costs: CPU time of a call through a cell, with mutual TLS and without, in turns.

The hot path is a miss: client, router, batcher and an instant model, each hop over TLS; cache and
limiter answer inside the cell. Counted is the CPU of the cell and of the instance, since both ends
encrypt, and not that of the client that makes the load.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from penstock.bench.harness.echo import TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.processes import cpu_s
from penstock.bench.overhead.sends import miss_of
from penstock.bench.overhead.stacks import Choices, instant_stack, processes_in
from penstock.stack.identities import Identities, write_identities
from penstock.stack.stack import Stack

CALLERS = 64
WARM_UP_S = 1.0


class Turn(NamedTuple):
    """CPU milliseconds of a call without and with mutual TLS, and their ratio."""

    plain_cpu_ms: float
    tls_cpu_ms: float
    ratio: float


class _Side(NamedTuple):
    send: Send
    processes: tuple[int, ...]


async def measure(rounds: int, seconds: float) -> list[Turn]:
    """Sides take turns; the order changes with each round."""
    with tempfile.TemporaryDirectory(prefix="penstock-tls-cpu-") as folder:
        identities = write_identities(Path(folder), TOKEN, tls=True)
        async with _side(None) as plain, _side(identities) as over_tls:
            for side in (plain, over_tls):
                await closed_loop(side.send, CALLERS, WARM_UP_S)
            return [
                await _turn(plain, over_tls, seconds, number % 2 == 0) for number in range(rounds)
            ]


@contextlib.asynccontextmanager
async def _side(identities: Identities | None) -> AsyncIterator[_Side]:
    certificates = identities.certificates if identities is not None else None
    own = certificates / "inference-onnx-quantized" if certificates is not None else None
    with echo_process(own) as echo:
        running = instant_stack(echo, Choices(identities=identities))
        async with running as stack:
            yield _Side(miss_of(stack), _processes(stack, echo))


def _processes(stack: Stack, echo: EchoAddresses) -> tuple[int, ...]:
    return (*processes_in(stack.plan.home), echo.pid)


async def _turn(plain: _Side, over_tls: _Side, seconds: float, plain_first: bool) -> Turn:
    order = (plain, over_tls) if plain_first else (over_tls, plain)
    cost = {side: await _cpu_ms(side, seconds) for side in order}
    return Turn(cost[plain], cost[over_tls], cost[over_tls] / cost[plain])


async def _cpu_ms(side: _Side, seconds: float) -> float:
    before = sum(map(cpu_s, side.processes))
    load = await closed_loop(side.send, CALLERS, seconds)
    spent_s = sum(map(cpu_s, side.processes)) - before
    return spent_s * 1e3 / len(load.latencies_ms)
