"""Loads of one way of a call, and what its processes used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from penstock.bench.edge.http_client import HttpError
from penstock.bench.harness.load import Send, closed_loop, quantile
from penstock.bench.harness.processes import cpu_s, program_of, proportional_mb

SHARES = (0.5, 0.99, 0.999)


@dataclass(frozen=True)
class Load:
    """What a load of one way gave.

    Attributes:
        calls: answered.
        failed: refused by the path, for which nobody waits: 64 callers with large payloads can be
            more than it takes.
        rps: answers a second.
        quantiles_ms: latencies at SHARES; with few calls the last ones are the largest.
        cpu_ms: CPU for each answer, by program.
    """

    calls: int
    failed: int
    rps: float
    quantiles_ms: tuple[float, ...]
    cpu_ms: Mapping[str, float]

    @property
    def all_cpu_ms(self) -> float:
        """CPU of all processes for each answer."""
        return sum(self.cpu_ms.values())


def programs_of(pids: list[int]) -> dict[int, str]:
    """What each process runs, in short."""
    return {pid: _short(program_of(pid)) for pid in pids}


def _short(program: str) -> str:
    """A store's command ends with its socket, a cell's with the names of its services."""
    if program.endswith(".sock"):
        return "store"
    return "cell" if "," in program else program


async def load_of(send: Send, callers: int, seconds: float, programs: Mapping[int, str]) -> Load:
    """Load with so many callers, and the CPU of these processes."""
    failed: set[int] = set()

    async def counted(number: int) -> None:
        try:
            await send(number)
        except (grpc.aio.AioRpcError, HttpError):
            failed.add(number)

    before_s = {pid: cpu_s(pid) for pid in programs}
    began_s = time.perf_counter()
    loaded = await closed_loop(counted, callers, seconds)
    took_s = time.perf_counter() - began_s
    latencies_ms = [ms for number, ms in loaded.latencies_ms.items() if number not in failed]
    calls = len(latencies_ms)
    if not calls:
        raise RuntimeError(f"all {len(failed)} calls failed")
    used_ms: dict[str, float] = {}
    for pid, began_s in before_s.items():
        used_ms[programs[pid]] = used_ms.get(programs[pid], 0.0) + (cpu_s(pid) - began_s) * 1e3
    return Load(
        calls,
        len(failed),
        calls / took_s,
        tuple(quantile(latencies_ms, share) for share in SHARES),
        {program: used / calls for program, used in used_ms.items()},
    )


def memory_mb(programs: Mapping[int, str]) -> dict[str, float]:
    """PSS by program, in megabytes."""
    held: dict[str, float] = {}
    for pid, program in programs.items():
        held[program] = held.get(program, 0.0) + proportional_mb(pid)
    return held
