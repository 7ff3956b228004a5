"""Penstock as its README advises for a busy machine, in the production profile with a cell for each
core, before a provider: key, rate, budget, cache and traces on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.provider import CHAT, SLOW, Provider
from penstock.bench.harness.processes import cpu_s
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.shapes import Layout
from penstock.stack.stack import WholeStack, run_stack
from rich.console import Console

TENANT = "bench"
KEY = "psk-edge"
RULES = (
    {"name": "rate", "kind": "rate", "counts": "requests", "limit": 10**9, "window": "minute"},
    {
        "name": "month",
        "kind": "budget",
        "counts": "microusd",
        "limit": 10**12,
        "window": "month",
        "calendar": True,
    },
)
PRICES = [
    {"name": name, "input_microusd_per_mtok": 150_000, "output_microusd_per_mtok": 600_000}
    for name in (CHAT, SLOW)
]


@dataclass(frozen=True)
class PenstockSide:
    """The running stack, and a client of its edge."""

    stack: WholeStack
    client: HttpClient

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(cpu_s(pid) for pid in self.stack.supervisor.pids)


@contextlib.asynccontextmanager
async def penstock(folder: Path, provider: Provider) -> AsyncIterator[PenstockSide]:
    """The whole stack with the provider as its only instance."""
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump(_config(provider)))
    log = LogStream(Console(quiet=True))
    layout = Layout(workers=os.cpu_count() or 1, profile="production")
    async with run_stack(ports.free(), folder, config, {TENANT: KEY}, log, layout) as stack:
        await stack.wait_for_instances(CHAT, 1, TENANT)
        headers = {"authorization": f"Bearer {KEY}"}
        client = HttpClient(stack.addresses["edge"], headers)
        yield PenstockSide(stack, client)
        client.close()


def _config(provider: Provider) -> dict[str, object]:
    models = [{"name": CHAT}, {"name": SLOW}]
    return {
        "keys": {"api": [api_key(TENANT, KEY)]},
        "limits": {"rules": list(RULES)},
        "prices": {"models": PRICES},
        "instances": [],
        "upstreams": {
            "servers": [
                {
                    "name": "provider",
                    "base_url": provider.base_url,
                    "models": models,
                    # As for OpenAI's own address, which this one stands for.
                    "switches": {"same_wire": True},
                }
            ]
        },
    }
