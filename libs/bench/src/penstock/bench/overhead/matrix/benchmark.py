"""Ways of a call through the path, by payload, callers, profile and shape, beside a bare echo.

The model and the provider answer at once, so all that is measured is the path, its client included.
Ways: a hit in the router's copies; a hit in the cache service (50,000 texts of 100 bytes, 2,000 of
larger ones, drawn by Zipf's law); a hit by meaning (the text is embedded; one in fifty is computed
as an audit); an embed miss; ten documents reranked; a question generated whole and as a stream of
200 chunks through `inference-upstream`; and chats, streams and reranking through the HTTP edge. The
payload is the text of a request: 0.1, 10 and 100 kB; the echo is sent the same text. CPU is that of
all Penstock processes for each answer, by program; memory is PSS after all loads. Each line is one
load in a closed loop, without intervals: the figures that are judged stand on the page `overhead`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from itertools import product

from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.provider import provider_process
from penstock.bench.harness.echo import EchoAddresses, echo_process
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Number, Result, Table
from penstock.bench.overhead.matrix.measure import Load, load_of, memory_mb, programs_of
from penstock.bench.overhead.matrix.semantic import sorter
from penstock.bench.overhead.matrix.ways import (
    KEYS,
    KEYS_OF_LARGE,
    PAYLOADS,
    SMALL_BYTES,
    Ways,
)
from penstock.bench.overhead.stacks import KEY, Choices, instant_stack, processes_of
from penstock.rpc.peers.stream import open_channel
from penstock.service.profiles import PROFILES, Profile
from penstock.service.program import loop_factory
from penstock.stack.shapes import SHAPES

NEEDS_MODELS = True
CALLERS = (1, 16, 64)
QUICK_PROFILES: tuple[Profile, ...] = ("production",)
SECONDS, WARM_UP_S = 1.5, 0.3
QUICK_S, QUICK_KEYS, QUICK_PAYLOADS, QUICK_CALLERS = 0.1, 200, PAYLOADS[:2], CALLERS[:2]
COLUMNS = (
    "way",
    "payload, kB",
    "callers",
    "calls",
    "failed",
    "calls a second",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "CPU ms a call",
    "CPU vs echo",
    "CPU ms a call by program",
)
Rows = list[tuple[str | Number, ...]]


def run(options: Options) -> Result:
    """Measure all stacks, one after the other."""
    tables: list[Table] = []
    with (
        echo_process() as echo,
        provider_process() as provider,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        for shape, profile in product(SHAPES, QUICK_PROFILES if options.quick else PROFILES):
            say(f"overhead --matrix: {shape}, {profile}")
            choices = Choices(
                shape,
                traced=True,
                profile=profile,
                provider=provider,
                models=home_folder() / "models",
                edge=True,
            )
            tables += runner.run(_stack_tables(echo, choices, quick=options.quick))
    figures = {"loads": sum(len(table.rows) for table in tables if table.columns == COLUMNS)}
    return Result(figures, tables=tuple(tables), exact=frozenset(figures))


async def _stack_tables(
    echo: EchoAddresses, choices: Choices, *, quick: bool
) -> tuple[Table, Table]:
    """The loads of one stack, and its memory."""
    name = f"{choices.shape}, {choices.profile}"
    async with _ways(echo, choices) as ways:
        programs = programs_of(processes_of(ways.stack))
        rows: Rows = []
        for size in QUICK_PAYLOADS if quick else PAYLOADS:
            rows += await _rows(ways, size, programs, echo, quick=quick)
        memory = sorted(memory_mb(programs).items())
    held = Table(f"{name}: memory, PSS in MB", ("program", "MB"), tuple(memory))
    return Table(name, COLUMNS, tuple(rows)), held


@contextlib.asynccontextmanager
async def _ways(echo: EchoAddresses, choices: Choices) -> AsyncIterator[Ways]:
    async with (
        instant_stack(echo, choices) as stack,
        sorter(stack),
        open_channel(echo.bare) as channel,
    ):
        http = HttpClient(stack.addresses["edge"], {"authorization": f"Bearer {KEY}"})
        yield Ways(stack, http, channel)
        http.close()


async def _rows(
    ways: Ways, size: int, programs: Mapping[int, str], echo: EchoAddresses, *, quick: bool
) -> Rows:
    """All ways with one payload."""
    keys = QUICK_KEYS if quick else KEYS if size == SMALL_BYTES else KEYS_OF_LARGE
    seconds, warm_up_s = (QUICK_S, QUICK_S) if quick else (SECONDS, WARM_UP_S)
    rows: Rows = []
    sends = await ways.of_payload(size, keys)
    echo_ms: dict[int, float] = {}
    for (way, send), callers in product(sends.items(), QUICK_CALLERS if quick else CALLERS):
        counted = {echo.pid: "echo"} if way == "echo" else programs
        await load_of(send, callers, warm_up_s, counted)
        load = await load_of(send, callers, seconds, counted)
        echo_ms.setdefault(callers, load.all_cpu_ms)
        rows.append((way, size / 1e3, callers, *_cells(load, echo_ms[callers])))
    return rows


def _cells(load: Load, echo_cpu_ms: float) -> tuple[str | Number, ...]:
    shares = sorted(load.cpu_ms.items(), key=lambda item: -item[1])
    by_program = ", ".join(f"{name} {cpu_ms:.2f}" for name, cpu_ms in shares if cpu_ms >= 0.005)
    ratio = load.all_cpu_ms / echo_cpu_ms if echo_cpu_ms else 0.0
    return (
        load.calls,
        load.failed,
        load.rps,
        *load.quantiles_ms,
        load.all_cpu_ms,
        ratio,
        by_program,
    )
