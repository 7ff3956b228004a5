"""Starts Penstock as processes for the black-box tests: which services, with which settings.

Tests know addresses, credentials, and the names of tenants, models and pools that
`configuration.py` declares.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import yaml
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.service.socket_paths import socket_folder
from penstock.testkit.eventually import eventually

from .configuration import EMBEDDER, PRICED, PROVIDER_KEY, TENANTS, configuration
from .processes import START_S, Processes, named_addresses
from .provider import Provider

SHAPE = os.environ.get("PENSTOCK_SHAPE", "processes")
"""`cell`: the services that decide share a process; `processes`: each has its own."""
TOKEN, OPERATOR = "internal-token-of-the-black-box", "secret-of-olga"


@dataclass(frozen=True)
class System:
    """A running Penstock: addresses by name, credentials, the provider, names nobody has used."""

    addresses: Mapping[str, str]
    provider: Provider
    token: str = TOKEN
    operator: str = OPERATOR
    _tenants: Iterator[str] = field(default_factory=lambda: iter(TENANTS))
    _models: Iterator[str] = field(default_factory=lambda: iter(PRICED[2:]))

    def fresh_tenant(self) -> str:
        """An organisation that no test has called for yet; its key has the same name."""
        return next(self._tenants)

    def fresh_model(self) -> str:
        """A priced model that nobody serves yet."""
        return next(self._models)


async def _instances_registered(router: str) -> bool:
    """Whether the router has heard of the model's instance and of the provider's."""
    async with grpc.aio.insecure_channel(router) as channel:
        stub = router_pb2_grpc.RegistryServiceStub(channel)
        metadata = (("penstock-token", TOKEN),)
        answer = await stub.ListFleets(router_pb2.ListFleetsRequest(), metadata=metadata)
        return {EMBEDDER, "chat"} <= {fleet.model for fleet in answer.fleets if fleet.serving}


@contextlib.asynccontextmanager
async def _prepared(home: Path, folder: Path) -> AsyncIterator[tuple[Processes, Provider]]:
    """The provider, the file, and processes that read it; `home` holds the built model."""
    provider, config = Provider(), folder / "penstock.yaml"
    shared = {
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_INTERNAL_TOKEN": TOKEN,
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_DRAIN_S": "0",
        "PENSTOCK_CACHE_SECRET": "secret-of-the-cache-of-the-black-box",
        "PENSTOCK_ALLOW_PLAINTEXT": "true",
        "PENSTOCK_ALLOW_SHARED_TOKEN": "true",
        "PROVIDER_KEY": PROVIDER_KEY,
    }
    async with provider.serving() as url, Processes(folder, shared) as processes:
        config.write_text(yaml.safe_dump(configuration(url)))
        yield processes, provider


@dataclass(frozen=True)
class _Services:
    """Starts each service of the whole system. `ledger` and `answers` are URLs of stores."""

    at: Mapping[str, str]
    processes: Processes
    ledger: str
    answers: str

    async def start(self) -> None:
        """Start all of them, and wait until the router knows the instances."""
        await self._telemetry()
        if SHAPE == "cell":
            await self._cell()
        else:
            for name, settings in self._deciding().items():
                await self._start(name, **settings)
        await self._brief_limiter()
        await self._instances()
        await self._scalers()
        await eventually(lambda: _instances_registered(self.at["router"]), START_S)

    async def _start(self, name: str, module: str = "", **settings: str) -> None:
        exported = {} if name == "telemetry" else {"otlp_endpoint": self.at["telemetry"]}
        address = self.at[name]
        await self.processes.service(name, module or name, address, **exported, **settings)

    async def _telemetry(self) -> None:
        await self._start(
            "telemetry",
            prometheus_listen=self.at["metrics"],
            otlp_http_listen=self.at["otlp-http"],
            content_tenants="content",
        )

    def _deciding(self) -> Mapping[str, Mapping[str, str]]:
        """The settings of the services that decide, those that are called first."""
        return {
            "batcher": {},
            "limiter": {
                "ledger_url": self.ledger,
                "admin_listen": self.at["operators"],
                "admin_tokens": f"olga={OPERATOR}",
                "envoy_listen": self.at["envoy"],
                "lease_ms": "1000",
                "store_timeout_ms": "5000",
                "store_patience_ms": "5000",
            },
            "cache": {"cache_url": self.answers},
            "router": {
                "ledger_url": self.ledger,
                "batcher_address": self.at["batcher"],
                "cache_address": self.at["cache"],
                "limiter_address": self.at["limiter"],
                "heartbeat_interval_ms": "200",
                "callback_hosts": "hooks.example.com",
                "callback_secret": "secret-of-callbacks",
            },
        }

    async def _cell(self) -> None:
        """The same in one process, or in as many as PENSTOCK_WORKERS says."""
        own = {
            f"{service}_{key}": value
            for service, settings in self._deciding().items()
            for key, value in {"listen": self.at[service], **settings}.items()
        }
        workers = os.environ.get("PENSTOCK_WORKERS", "1")
        shared = {"otlp_endpoint": self.at["telemetry"], "workers": workers}
        await self.processes.cell(tuple(self._deciding()), self.at["router"], **shared, **own)

    async def _brief_limiter(self) -> None:
        """Another limiter on the same ledger, whose holds expire after a second."""
        await self._start("brief_limiter", "limiter", ledger_url=self.ledger, hold_ms="1000")

    async def _instances(self) -> None:
        router = self.at["router"]
        await self._start(
            "inference",
            "inference_onnx_quantized",
            instance_id="onnx-1",
            compute_threads="1",
            router_address=router,
        )
        await self._start(
            "upstream", "inference_upstream", upstream="provider", router_address=router
        )

    async def _scalers(self) -> None:
        """The scaler, and another one that knows nothing of it and decides seldom."""
        await self._start(
            "scaler",
            ledger_url=self.ledger,
            tick_s="0.2",
            keda_listen=self.at["keda"],
            router_address=self.at["router"],
        )
        await self._start("slow_scaler", "scaler", tick_s="3", keda_listen=self.at["slow_keda"])


@contextlib.asynccontextmanager
async def running_system(home: Path, folder: Path) -> AsyncIterator[System]:
    """Every service once, with everything between them."""
    internal = ("cache", "limiter", "batcher", "inference", "upstream", "scaler")
    twins = ("brief_limiter", "slow_scaler")
    second_ports = ("operators", "envoy", "metrics", "otlp-http", "keda", "slow_keda")
    at = named_addresses("router", "telemetry", *internal, *twins, *second_ports)
    with socket_folder() as sockets:
        async with _prepared(home, folder) as (processes, provider):
            ledger = await processes.store("ledger", sockets)
            answers = await processes.store("answers", sockets)
            await _Services(at, processes, ledger, answers).start()
            yield System(at, provider)


@contextlib.asynccontextmanager
async def running_cut_off(home: Path, folder: Path) -> AsyncIterator[System]:
    """Two routers in the production profile before one batcher.

    `router`: store, limiter, cache and telemetry are configured and away, calls may pass without
    the limiter, nothing is retried. `strict`: the limiter is away, and no call may pass without it;
    there is no store.
    """
    at = named_addresses("router", "strict", "batcher", "nobody")
    nobody = at["nobody"]
    async with _prepared(home, folder) as (processes, provider):
        processes.kill = True  # a router goes on trying to settle for half a minute
        await processes.service("batcher", "batcher", at["batcher"], profile="production")
        shared = {
            "profile": "production",
            "batcher_address": at["batcher"],
            "limiter_address": nobody,
        }
        await processes.service(
            "router",
            "router",
            at["router"],
            **shared,
            ledger_url=f"unix://{folder}/no.sock",
            limiter_loss="open",
            retry_budget="0",
            cache_address=nobody,
            otlp_endpoint=nobody,
        )
        await processes.service("strict", "router", at["strict"], **shared)
        yield System(at, provider)
