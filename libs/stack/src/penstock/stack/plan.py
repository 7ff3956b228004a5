"""What a stack consists of: each process with its variables, in the order of starting.

Plain values; nothing is started here. deploy/services.yaml also says which services there are, whom
each calls and on which port; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from penstock.service.store import EmbeddedStore
from penstock.stack.process import Program, python_module
from penstock.stack.readiness import STORE_SCHEME

Stage = tuple[Program, ...]
"""Programs that do not need each other and start together."""
StoreName = Literal["ledger", "cache"]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
STANDALONE = {"redis_url": "", "otlp_endpoint": ""}
"""Settings of a service that runs without a store and without telemetry."""
SINGLE_THREADED_LIBRARIES = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""All processes share the cores, and services have thread pools of their own."""


@dataclass(frozen=True)
class StackPlan:
    """The choices of one stack.

    Attributes:
        addresses: `host:port` by the names of `ports.PORTS`.
        home: folder of models and data.
        sockets: folder of the embedded stores' unix sockets.
        config_file: the YAML file for all services.
        token: secret of the internal ports.
        redis_url: store for everything; empty: two embedded ones.
        instances: number of inference instances, at most two.
        profile: `development` or `production`.
        api_key: key with which the console calls the router.
        upstream_name: the upstream of `config_file` that gets a process; empty: none.
    """

    addresses: Mapping[str, str]
    home: Path
    sockets: Path
    config_file: Path
    token: str
    redis_url: str = ""
    instances: int = 2
    profile: str = "development"
    api_key: str = ""
    upstream_name: str = ""

    def stages(self) -> tuple[Stage, ...]:
        """The whole stack; the programs of one stage may start together."""
        instances = tuple(self.instance(number) for number in range(1, self.instances + 1))
        upstream = (self.upstream(self.upstream_name),) if self.upstream_name else ()
        return (
            *(() if self.redis_url else (self._stores(),)),
            (self._telemetry(),),
            (self._service("batcher"), self._limiter(), self._service("cache")),
            (self._router(**self._addresses_of("cache", "limiter")),),
            (*instances, *upstream, self._scaler(), self._console()),
        )

    def router_and_batcher(self) -> Stage:
        """The least that a call needs beside an instance: no store, no telemetry."""
        return (self._service("batcher", **STANDALONE), self._router(**STANDALONE))

    def request_path(self, *, traced: bool) -> tuple[Stage, ...]:
        """Every process that a call passes before an instance, with or without telemetry."""
        settings = {} if traced else {"otlp_endpoint": ""}
        return (
            self._stores(),
            *(((self._telemetry(),),) if traced else ()),
            (
                self._service("batcher", **settings),
                self._service("limiter", **settings),
                self._service("cache", **settings),
            ),
            (self._router(**self._addresses_of("cache", "limiter"), **settings),),
        )

    def batcher_and_instance(self) -> Stage:
        """A batcher and one instance that registers nowhere, to measure the two alone."""
        return (
            self._service("batcher", **STANDALONE),
            self.instance(1, router_address="", **STANDALONE),
        )

    def instance(self, number: int, **settings: str) -> Program:
        """One instance of the default model; `number` counts from 1."""
        name = f"inference-{number}"
        defaults = {
            "instance_id": name,
            "compute_threads": "1",
            **self._addresses_of("router"),
        }
        return self._service(name, "inference_onnx_quantized", **{**defaults, **settings})

    def upstream(self, name: str, **settings: str) -> Program:
        """The service for one upstream of the configuration file."""
        defaults = {"upstream": name, **self._addresses_of("router")}
        return self._service("inference-upstream", **{**defaults, **settings})

    @property
    def ledger_url(self) -> str:
        """The store that never evicts: registry, budgets, jobs."""
        return self.redis_url or self._embedded("ledger").url

    @property
    def cache_url(self) -> str:
        """The store of bounded size: cached answers."""
        return self.redis_url or self._embedded("cache").url

    def _router(self, **settings: str) -> Program:
        return self._service("router", **self._addresses_of("batcher"), **settings)

    def _telemetry(self) -> Program:
        return self._service("telemetry", prometheus_listen=self.addresses["metrics"])

    def _limiter(self) -> Program:
        """The limiter and its operators' port, whose secret is the internal token here."""
        return self._service(
            "limiter",
            admin_listen=self.addresses["limiter-admin"],
            admin_tokens=f"developer={self.token}",
        )

    def _scaler(self) -> Program:
        """The scaler; it starts further instances of the default model on this machine."""
        return self._service(
            "scaler",
            local_pool=DEFAULT_MODEL,
            local_command="{python} -u -m penstock.inference_onnx_quantized",
            local_beside=str(self.instances),
            **self._addresses_of("batcher", "router", "telemetry"),
        )

    def _console(self) -> Program:
        """The console, which shows the services that answer and names those that do not."""
        callees = ("telemetry", "router", "batcher", "limiter", "cache", "scaler")
        program = self._service("console", api_key=self.api_key, **self._addresses_of(*callees))
        return replace(program, address=f"http://{self.addresses['console']}/")

    def _addresses_of(self, *services: str) -> dict[str, str]:
        """The settings by which a service finds others, such as `router_address`."""
        return {f"{name}_address": self.addresses[name] for name in services}

    def _stores(self) -> Stage:
        return (self._store("ledger"), self._store("cache"))

    def _store(self, name: StoreName) -> Program:
        store = self._embedded(name)
        return Program(
            f"redis-{name}", tuple(store.command()), address=f"{STORE_SCHEME}{store.url}"
        )

    def _embedded(self, name: StoreName) -> EmbeddedStore:
        folder = self.home / "redis" / name
        folder.mkdir(parents=True, exist_ok=True)
        return EmbeddedStore(folder.resolve(), self.sockets / f"{name}.sock", name)

    def _service(self, name: str, module: str = "", **settings: str) -> Program:
        """A service as a process; `module` is its package, by default that of its name."""
        values = {
            "listen": self.addresses[name],
            "profile": self.profile,
            "config_file": str(self.config_file),
            "redis_url": self.cache_url if name == "cache" else self.ledger_url,
            "otlp_endpoint": "" if name == "telemetry" else self.addresses["telemetry"],
            "internal_token": self.token,
            "home": str(self.home),
            **settings,
        }
        variables = {f"PENSTOCK_{key.upper()}": value for key, value in values.items()}
        return Program(
            name,
            python_module(f"penstock.{module or name.replace('-', '_')}"),
            {**SINGLE_THREADED_LIBRARIES, **variables},
            self.addresses[name],
        )
