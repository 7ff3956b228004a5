"""What recording costs: CPU of a miss in the development profile, which records every call, in the
production profile, which records a sample, and in that profile without telemetry.

Three cells take turns. Telemetry's own CPU counts, and since spans leave a process seconds after
the answers, so does a pause after the calls, which is the same for each side.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from penstock.bench.harness.echo import EchoAddresses
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import closed_loop
from penstock.bench.harness.parts import Part
from penstock.bench.harness.processes import cpu_s
from penstock.bench.harness.report import Bound, Table
from penstock.bench.overhead.calls import CALLERS, WARM_UP_S, Side
from penstock.bench.overhead.sends import miss_of
from penstock.bench.overhead.stacks import Choices, instant_stack, processes_of

ROUNDS, SECONDS, EXPORT_S = 7, 3.0, 3.0
SIDES = {
    "untraced": Choices(),
    "production": Choices(traced=True),
    "development": Choices(traced=True, profile="development"),
}
BOUNDS = {
    "development_vs_production_cpu": Bound("<=", 1.3),
    "tracing_cpu_ratio": Bound("<=", 1.05),
}


class RecordingRound(NamedTuple):
    """CPU milliseconds of all processes for each answer, one round."""

    untraced: float
    production: float
    development: float

    def figures(self) -> dict[str, float]:
        """What it says of each figure."""
        return {
            "development_vs_production_cpu": self.development / self.production,
            "tracing_cpu_ratio": self.production / self.untraced,
            **{f"{name}_miss_cpu_ms": value for name, value in self._asdict().items()},
        }


async def measure_recording(echo: EchoAddresses, *, quick: bool) -> Part:
    """All three, interleaved; the first of a round changes."""
    rounds, seconds, export_s = (2, 0.3, 0.3) if quick else (ROUNDS, SECONDS, EXPORT_S)
    async with contextlib.AsyncExitStack() as owned:
        sides = {}
        for name, choices in SIDES.items():
            stack = await owned.enter_async_context(instant_stack(echo, choices))
            sides[name] = Side(miss_of(stack), processes_of(stack))
            await closed_loop(sides[name].send, CALLERS, WARM_UP_S)
        rows = []
        for number in range(rounds):
            first = number % len(SIDES)
            order = [*SIDES][first:] + [*SIDES][:first]
            cpu_ms = {name: await _cpu_ms(sides[name], seconds, export_s) for name in order}
            rows.append(RecordingRound(**cpu_ms))
    figures = [row.figures() for row in rows]
    table = Table("CPU of a miss, ms, by what is recorded", RecordingRound._fields, tuple(rows))
    intervals = bootstrap(figures, medians, "rounds")
    return Part(medians(figures), tables=(table,), intervals=intervals)


async def _cpu_ms(side: Side, seconds: float, export_s: float) -> float:
    before_s = sum(map(cpu_s, side.pids))
    loaded = await closed_loop(side.send, side.callers, seconds)
    await asyncio.sleep(export_s)
    return (sum(map(cpu_s, side.pids)) - before_s) * 1e3 / len(loaded.latencies_ms)
