"""What the path costs beside a bare grpc.aio echo: CPU, rates, latencies, memory.

`cell_` and `sep_` are stacks of all deciding services with an instant model, in one process and in
separate ones; `generate` goes through `inference-upstream` to a provider that answers at once. The
echo runs with the services' environment and is called with the same payload. `_cpu_vs_echo` is the
CPU time of all processes of a stack for an answer, stores included, divided by that of the echo's
server, with 16 callers; `_rps_ratio` of misses is with 16 callers too, that of hits with 64, and
`_p50_ratio` with one. A miss has a new text each time, so that cache, limiter, batcher and model
are all called. A service hit is one of 50,000 texts that the cache service has, drawn by Zipf's law
(the router answers the most popular ones from its copies of the last second); a client hit is the
same text each time through the Python client. Sides take turns in rounds; a figure is the median
over the rounds of the ratio within one round.

`development_vs_production_cpu` and `tracing_cpu_ratio` compare CPU of a miss by what is recorded:
all (development), a sample (production), nothing. `p99_vs_queue_model` is the p99 of Poisson
arrivals on the real model over that of an M/G/c queue with the measured service times; see
`penstock.bench.overhead.tail` for c and the capacity. `pss_mb_cell_stack` is the memory of a whole
`make up` as a cell without the chat model, less the weights. `idle_cpu_share` is what a whole `make
up` takes of one core while nobody calls it. `workers_` are two cells behind one address against
one. `--matrix` measures more payloads, callers and ways of a call, on a page of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock.bench.harness.echo import EchoAddresses, echo_process
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Measure, Part, run_parts
from penstock.bench.harness.report import Result
from penstock.bench.overhead import at_rest, calls, recording, tail, workers
from penstock.service.program import loop_factory

NEEDS_MODELS = True
BOUNDS = {
    **calls.BOUNDS,
    **recording.BOUNDS,
    **tail.BOUNDS,
    **at_rest.MEMORY_BOUNDS,
    **at_rest.IDLE_BOUNDS,
    **workers.BOUNDS,
}
CONTEXT = {"data": "one text of 63 bytes, a number after it for misses", "clients": "plain stubs"}


def _with_echo(measure: Callable[..., Awaitable[Part]]) -> Measure:
    """A part that is compared with the echo or registers it as the instant model."""

    async def measured(echo: EchoAddresses, quick: bool) -> Part:
        return await measure(echo, quick=quick)

    def run_part(quick: bool) -> Part:
        with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(measured(echo, quick))

    return run_part


def _alone(measure: Callable[..., Awaitable[Part]]) -> Measure:
    """A part that needs no echo."""

    async def measured(quick: bool) -> Part:
        return await measure(quick=quick)

    def run_part(quick: bool) -> Part:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(measured(quick))

    return run_part


PARTS = {
    "calls": _with_echo(calls.measure_calls),
    "recording": _with_echo(recording.measure_recording),
    "tail": _alone(tail.measure_tail),
    "memory": _alone(at_rest.measure_memory),
    "idle": _alone(at_rest.measure_idle),
    "workers": _with_echo(workers.measure_workers),
}


def run(options: Options) -> Result:
    """Measure."""
    return run_parts("overhead", PARTS, options, BOUNDS, CONTEXT)
