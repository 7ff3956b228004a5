"""How long a cache with many entries takes from its start until it serves."""

from __future__ import annotations

import time
from pathlib import Path

from penstock.bench.harness.processes import supervised
from penstock.service.free_ports import free_address
from penstock.service.store import embedded_store, open_store
from penstock.stack.process import Program, python_module

ENTRY_BYTES = 400
WRITTEN_AT_ONCE = 2_000
TENANTS = 20


async def measure(folder: Path, entries: int, starts: int) -> list[float]:
    """Seconds until the cache says that it serves, of so many starts on the same store."""
    async with embedded_store(folder) as url:
        await _fill(url, entries)
        address = free_address()
        program = Program(
            "cache",
            python_module("penstock.cache"),
            {
                "PENSTOCK_CACHE_URL": url,
                "PENSTOCK_LISTEN": address,
                "PENSTOCK_INTERNAL_TOKEN": "token-of-the-fault-benchmark",
                "PENSTOCK_CACHE_SECRET": "secret-of-the-fault-benchmark",
                "PENSTOCK_OTLP_ENDPOINT": "",
                "PENSTOCK_LOG_LEVEL": "error",
                "PENSTOCK_HOME": str(folder / "home"),
            },
            address,
        )
        return [await _start_s(program) for _ in range(starts)]


async def _start_s(program: Program) -> float:
    async with supervised() as supervisor:
        began_s = time.perf_counter()
        await supervisor.start((program,), timeout_s=120.0)
        return time.perf_counter() - began_s


async def _fill(url: str, entries: int) -> None:
    """Write entries as the cache names them; their content is not read at the start."""
    content = b"0" * ENTRY_BYTES
    async with open_store(url, timeout_s=30.0) as client:
        for begin in range(0, entries, WRITTEN_AT_ONCE):
            numbers = range(begin, min(begin + WRITTEN_AT_ONCE, entries))
            await client.mset({_key(number): content for number in numbers})


def _key(number: int) -> str:
    return f"penstock:cache:{number % TENANTS:064x}:e:{number:064x}"
