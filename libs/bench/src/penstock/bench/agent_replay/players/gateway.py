"""Penstock as `make up` starts it, before the scripted provider: an organisation for each arm and
workload, so that no answer of one load is there for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.bench.agent_replay.players.arms import ARMS, DEFAULTS, Arm
from penstock.bench.agent_replay.players.load_plan import Target
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST
from penstock.bench.agent_replay.traffic.recordings import MODEL, Json
from penstock.bench.agent_replay.traffic.requests import CHAT_PATH
from penstock.bench.edge.litellm import Served
from penstock.bench.edge.penstock_side import RULES
from penstock.bench.harness.processes import cpu_s
from penstock.service.default_models import ENCODER
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.stack import WholeStack, run_stack
from rich.console import Console

EMBED_PATH = "/v1/embeddings"
ENCODER_MICROUSD_PER_MTOK = 20_000
"""As in `deploy/penstock.yaml`."""
PRICES = (
    {
        "name": MODEL,
        "input_microusd_per_mtok": WRITES_COST.input,
        "cached_input_microusd_per_mtok": WRITES_COST.cached,
        "written_input_microusd_per_mtok": WRITES_COST.written,
        "output_microusd_per_mtok": WRITES_COST.output,
    },
    {"name": ENCODER, "input_microusd_per_mtok": ENCODER_MICROUSD_PER_MTOK},
)


@dataclass(frozen=True)
class Gateway:
    """The running stack."""

    stack: WholeStack

    def target(self, arm: Arm, workload: str, path: str = CHAT_PATH) -> Target:
        """Where an arm's calls of a workload go."""
        key = _key(organisation(arm, workload))
        headers = {"authorization": f"Bearer {key}", **arm.headers}
        return Target(self.stack.addresses["edge"], path, headers, receipts=True)

    def embeddings(self, workload: str) -> Served:
        """The model that comes with Penstock, for a cache that compares embeddings."""
        key = _key(organisation(DEFAULTS, workload))
        return Served(f"http://{self.stack.addresses['edge']}/v1", (ENCODER,), key)

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(cpu_s(pid) for pid in self.stack.supervisor.pids)


def organisation(arm: Arm, workload: str) -> str:
    """Who calls for an arm in a workload."""
    return f"{arm.name}-{workload}"


def _key(tenant: str) -> str:
    return f"psk-replay-{tenant}"


@contextlib.asynccontextmanager
async def gateway(
    home: Path, folder: Path, provider: str, ca_file: Path, workloads: Iterable[str]
) -> AsyncIterator[Gateway]:
    """Start it.

    Args:
        home: the folder with the built models.
        folder: an empty one, for its data.
        provider: `host:port` of the scripted provider.
        ca_file: authorities that the provider's certificate comes from.
        workloads: names of all that will be played.
    """
    (folder / "models").symlink_to(home / "models")
    names = [(arm, organisation(arm, each)) for arm in ARMS if arm.through for each in workloads]
    keys = {tenant: _key(tenant) for _, tenant in names}
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump(configuration(provider, ca_file, names)))
    log = LogStream(Console(quiet=True))
    async with run_stack(ports.free(), folder, config, keys, log) as stack:
        for model in (MODEL, ENCODER):
            await stack.wait_for_instances(model, 1, next(iter(keys)))
        yield Gateway(stack)


def configuration(
    provider: str, ca_file: Path, organisations: Iterable[tuple[Arm, str]]
) -> dict[str, object]:
    """The configuration file: that of `make up` with the provider, prices and rules for prompts."""
    pairs = list(organisations)
    rules: list[Json] = [
        {"organisation": tenant, **arm.shaping} for arm, tenant in pairs if arm.shaping is not None
    ]
    server = {
        "name": "provider",
        "base_url": f"https://{provider}/v1",
        # The provider that this address stands for.
        "provider": "openai",
        "ca_file": str(ca_file),
        "models": [{"name": MODEL}],
    }
    return {
        "keys": {"api": [api_key(tenant, _key(tenant)) for _, tenant in pairs]},
        "limits": {"rules": list(RULES)},
        "prices": {"models": list(PRICES)},
        "prompts": {"rules": [*rules, {}]},
        "instances": [{"models": [ENCODER]}],
        "upstreams": {"servers": [server]},
    }
