"""What a stack consists of: each process with its variables, in the order of starting.

Plain values; nothing is started here. deploy/services.yaml also says which services there are, whom
each calls and on which port; a test compares the two.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.service.default_models import CHAT, ENCODER
from penstock.service.profiles import Profile
from penstock.service.store import EmbeddedStore, StoreName
from penstock.service.tls_files import TlsSource
from penstock.stack.identities import Identities
from penstock.stack.process import Program, python_module
from penstock.stack.readiness import STORE_SCHEME
from penstock.stack.shapes import BESIDE, CELL, Shape
from penstock.stack.workers import Workers

Stage = tuple[Program, ...]
"""Programs that do not need each other and start together."""
DEFAULT_MODEL = ENCODER
STANDALONE = {"ledger_url": "", "otlp_endpoint": ""}
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
        external_ledger_url: the store that never evicts; empty: an embedded one.
        external_cache_url: the store of bounded size; empty: an embedded one.
        instances: number of inference instances, at most two.
        profile: of all processes.
        api_key: key with which the console calls the router.
        upstream_name: the upstream of `config_file` that gets a process; empty: none.
        chat: whether an instance of the chat model runs as well.
        own_pool: whether the scaler itself runs further instances of the default model.
        shape: which services share a process.
        workers: cells behind one address.
        first_cell_address: see `Workers`.
        identities: what each service proves itself with; None: all with `token`.
        tls: an operator's certificate; None for plaintext.
    """

    addresses: Mapping[str, str]
    home: Path
    sockets: Path
    config_file: Path
    token: str
    external_ledger_url: str = ""
    external_cache_url: str = ""
    instances: int = 2
    profile: Profile = "development"
    api_key: str = ""
    upstream_name: str = ""
    own_pool: bool = True
    shape: Shape = "processes"
    chat: bool = False
    workers: int = 1
    first_cell_address: str = ""
    identities: Identities | None = None
    tls: TlsSource | None = None

    def stages(self) -> tuple[Stage, ...]:
        """The whole stack; the programs of one stage may start together."""
        stores = (self._stores(),) if self._stores() else ()
        encoders = tuple(self.instance(number) for number in range(1, self.instances + 1))
        instances = (*encoders, self.chat_instance()) if self.chat else encoders
        upstream = (self.upstream(self.upstream_name),) if self.upstream_name else ()
        if self.shape == "cell":
            return (*stores, (self._beside(),), self.cells(), (*instances, *upstream))
        return (
            *stores,
            (self._process("telemetry"),),
            tuple(self._process(name) for name in ("batcher", "limiter", "cache")),
            (self._process("router"),),
            (
                *instances,
                *upstream,
                self._process("scaler"),
                self.edge(),
                self._console(),
            ),
        )

    def service_stages(self) -> tuple[Stage, ...]:
        """The same without instances and upstreams; the last stage may start together with them,
        and may be empty.
        """
        return tuple(
            tuple(program for program in stage if not _computes(program)) for stage in self.stages()
        )

    def default_instances(self) -> Stage:
        """The instances that run where the configuration names none."""
        programs = (program for stage in self.stages() for program in stage)
        return tuple(
            program
            for program in programs
            if _computes(program) and "PENSTOCK_UPSTREAM" not in program.env
        )

    def local_process(self, name: str, module: str, address: str, **settings: str) -> Program:
        """A further instance or upstream on this machine, under a name of its own."""
        plan = replace(self, addresses={**self.addresses, name: address})
        return plan._process(name, module, **{**self._addresses_of("router"), **settings})

    def router_and_batcher(self) -> Stage:
        """The least that a call needs beside an instance: no store, no telemetry."""
        batcher = self._addresses_of("batcher")
        nobody = {"cache_address": "", "limiter_address": "", "keys_listen": ""}
        alone = {**nobody, **batcher, **STANDALONE}
        return (self._process("batcher", **STANDALONE), self._process("router", **alone))

    def request_path(self, *, traced: bool) -> tuple[Stage, ...]:
        """Every process that a call passes before an instance, with or without telemetry."""
        settings = {} if traced else {"otlp_endpoint": ""}
        before = (self._stores(), *(((self._process("telemetry"),),) if traced else ()))
        if self.shape == "cell":
            return (*before, self.cells(**settings))
        called = tuple(self._process(name, **settings) for name in ("batcher", "limiter", "cache"))
        return (*before, called, (self._process("router", **settings),))

    def cells(self, **settings: str) -> Stage:
        """The deciding services in one process, as often as there are workers; `settings` are those
        of all.
        """
        cell = self._together("cell", CELL, self.addresses["router"], **settings)
        return self._workers.programs(cell)

    @property
    def _workers(self) -> Workers:
        return Workers(self.workers, self.sockets, self.first_cell_address)

    def _every_batcher(self) -> dict[str, str]:
        """Where those ask who want the queues of all batchers."""
        own = ",".join(self._workers.addresses())
        return {"batcher_address": own or self.addresses["batcher"]}

    def batcher_and_instance(self, **settings: str) -> Stage:
        """A batcher and one instance that registers nowhere, to measure the two alone; `settings`
        are the instance's.
        """
        return (
            self._process("batcher", **STANDALONE),
            self.instance(1, **{"router_address": "", **STANDALONE, **settings}),
        )

    def instance(self, number: int, **settings: str) -> Program:
        """One instance of the default model; `number` counts from 1."""
        return self._instance(f"inference-{number}", **settings)

    def chat_instance(self) -> Program:
        """The instance that answers `generate`."""
        return self._instance("generate", models=CHAT)

    def _instance(self, name: str, **settings: str) -> Program:
        defaults = {
            "instance_id": name,
            "compute_threads": "1",
            **self._addresses_of("router"),
        }
        return self._process(name, "inference_onnx_quantized", **{**defaults, **settings})

    def upstream(self, name: str, **settings: str) -> Program:
        """The service for one upstream of the configuration file."""
        defaults = {"upstream": name, **self._addresses_of("router")}
        return self._process("inference-upstream", **{**defaults, **settings})

    @property
    def _operators(self) -> dict[str, str]:
        """Who may use the operators' ports: their secret is the internal token here."""
        return {"admin_tokens": f"developer={self.token}"}

    @property
    def ledger_url(self) -> str:
        """The store that never evicts: registry, budgets, jobs."""
        return self.external_ledger_url or self._embedded("ledger").url

    @property
    def cache_url(self) -> str:
        """The store of bounded size: cached answers."""
        return self.external_cache_url or self._embedded("cache").url

    def _own_settings(self, service: str) -> dict[str, str]:
        """What only this service is told."""
        match service:
            case "edge":
                return self._addresses_of("router")
            case "router":
                own = {
                    "registry_listen": self.addresses["registry"],
                    "keys_listen": self.addresses["router-keys"],
                    "keys_secret": _derived("API keys", self.token),
                }
                callees = self._addresses_of("batcher", "cache", "limiter")
                return own | callees | self._operators
            case "cache":
                kept = self.identities.cache_secret if self.identities is not None else ""
                return {"secret": kept or _derived("cache keys", self.token)}
            case "limiter":
                return {"admin_listen": self.addresses["limiter-admin"], **self._operators}
            case "telemetry":
                return {
                    "prometheus_listen": self.addresses["metrics"],
                    "otlp_http_listen": self.addresses["otlp-http"],
                }
            case "scaler":
                callees = self._addresses_of("router", "telemetry")
                return self._local_pool() | self._every_batcher() | callees
            case "console":
                callees = self._addresses_of("telemetry", "router", "limiter", "cache", "scaler")
                return {"api_key": self.api_key, **self._every_batcher(), **callees}
            case _:
                return {}

    def _local_pool(self) -> dict[str, str]:
        """The scaler's pool: further instances of the default model on this machine."""
        if not self.own_pool:
            return {}
        service = "inference-onnx-quantized"
        prefix = service.replace("-", "_")
        identity = self.identities.settings_of(service) if self.identities is not None else {}
        return {
            **{f"{prefix}_{key}": value for key, value in identity.items()},
            "local_pool": DEFAULT_MODEL,
            "local_command": "{python} -u -m penstock.inference_onnx_quantized",
            "local_beside": str(self.instances),
        }

    def edge(self) -> Program:
        """The HTTP edge, which has no gRPC port to be probed at."""
        return replace(self._process("edge"), address=self._page("edge"))

    def _console(self) -> Program:
        """The console, which shows the services that answer and names those that do not."""
        return replace(self._process("console"), address=self._page("console"))

    def _beside(self) -> Program:
        """The services beside the path; the console is the last of them that starts."""
        return self._together("beside", BESIDE, self._page("console"))

    def _page(self, service: str) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{self.addresses[service]}/"

    def _addresses_of(self, *services: str) -> dict[str, str]:
        """The settings by which a service finds others, such as `router_address`."""
        known = {f"{name}_address": self.addresses[name] for name in services}
        registry = {"registry_address": self.addresses["registry"]} if "router" in services else {}
        return known | registry

    def _stores(self) -> Stage:
        """The embedded stores: those that nobody else runs."""
        ledger = () if self.external_ledger_url else (self._store("ledger"),)
        return ledger if self.external_cache_url else (*ledger, self._store("cache"))

    def _store(self, name: StoreName) -> Program:
        store = self._embedded(name)
        return Program(
            f"redis-{name}", tuple(store.command()), address=f"{STORE_SCHEME}{store.url}"
        )

    def _embedded(self, name: StoreName) -> EmbeddedStore:
        return EmbeddedStore.of_home(self.home, name, self.sockets / f"{name}.sock")

    def _process(self, name: str, module: str = "", **settings: str) -> Program:
        """A service as a process; `module` is its package, by default that of its name."""
        return Program(
            name,
            python_module(f"penstock.{module or name.replace('-', '_')}"),
            _variables(
                self._settings_of(name)
                | self._identity_of((module or name).replace("_", "-"))
                | settings
            ),
            self.addresses[name],
            reloads=True,
        )

    def _together(
        self, name: str, services: tuple[str, ...], address: str, **settings: str
    ) -> Program:
        """Services in one process."""
        values = {
            service: self._settings_of(service) | self._identity_of(service) | settings
            for service in services
        }
        command = (*python_module("penstock.stack"), "cell", ",".join(services))
        return Program(name, command, _variables(_shared(values)), address, reloads=True)

    def _allowed(self) -> dict[str, str]:
        """What the production profile does not ask for where all is on this machine."""
        if self.profile != "production":
            return {}
        words = ("allow_plaintext", "allow_shared_token", "allow_no_limits")
        return dict.fromkeys(words, "true")

    def _identity_of(self, service: str) -> dict[str, str]:
        if self.identities is None:
            return {"internal_token": self.token}
        return self.identities.settings_of(service)

    def _settings_of(self, service: str) -> dict[str, str]:
        return {
            "listen": self.addresses[service],
            "profile": self.profile,
            **self._allowed(),
            "config_file": str(self.config_file),
            "ledger_url": self.ledger_url,
            "cache_url": self.cache_url,
            "otlp_endpoint": "" if service == "telemetry" else self.addresses["telemetry"],
            "home": str(self.home),
            **self._own_settings(service),
        }


def _derived(purpose: str, secret: str) -> str:
    """A secret for one purpose, from another one."""
    return hashlib.sha256(f"{purpose} of {secret}".encode()).hexdigest()


def _computes(program: Program) -> bool:
    """Whether it is an instance or an upstream."""
    return program.command[-1].startswith("penstock.inference_")


def _shared(values: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The settings of several services for one environment, which the children of these services
    inherit: what most of them are told is told to all, and what differs is told under a service's
    name.
    """
    shared: dict[str, str] = {}
    own: dict[str, str] = {}
    for key in dict.fromkeys(key for settings in values.values() for key in settings):
        told = {service: settings[key] for service, settings in values.items() if key in settings}
        ((common, _),) = Counter(told.values()).most_common(1)
        if key != "listen":
            shared[key] = common
        own |= {
            f"{service}_{key}": value for service, value in told.items() if value != shared.get(key)
        }
    return shared | own


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    variables = {f"PENSTOCK_{key.upper()}": value for key, value in settings.items()}
    return {**SINGLE_THREADED_LIBRARIES, **variables}
