"""deploy/services.yaml as values, and what variables of a deployment say about the same things."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from penstock.rpc.callers import REGISTRY_CALLERS
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[2]
LISTEN = "listen"
REGISTRY = "registry"
STORES = ("ledger", "cache")


class Entry(BaseModel):
    """One service; see the head of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    does: str
    ports: dict[str, int]
    protocol: Literal["grpc", "http"] = "grpc"
    calls: frozenset[str] = frozenset()
    registers: bool = False
    store: Literal["ledger", "cache"] | None = None
    models: bool = False
    libraries: frozenset[str] = frozenset()
    open_to: dict[str, str] = {}

    @property
    def port(self) -> int:
        """Its own port."""
        return self.ports[LISTEN]


class EveryService(BaseModel):
    """What all services have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exports_to: str
    libraries: frozenset[str]


class Store(BaseModel):
    """The store in containers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int


class ServicesFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_service: EveryService
    store: Store
    services: dict[str, Entry]

    def calls_of(self, name: str) -> set[tuple[str, str]]:
        """(service, port name) of every connection that a service makes to another."""
        calls = {(callee, LISTEN) for callee in self.services[name].calls}
        if name != self.every_service.exports_to:
            calls.add((self.every_service.exports_to, LISTEN))
        if name in REGISTRY_CALLERS:
            calls.add(("router", REGISTRY))
        if name == "batcher":
            calls |= {(other, LISTEN) for other, row in self.services.items() if row.registers}
        return calls

    def libraries_of(self, name: str) -> set[str]:
        """Every library that a service needs."""
        return {*self.every_service.libraries, *self.services[name].libraries}


FILE = ServicesFile.model_validate(yaml.safe_load((ROOT / "deploy/services.yaml").read_text()))


def package_of(service: str) -> str:
    """The name of a service's Python package, below `penstock`."""
    return service.replace("-", "_")


def address_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The addresses of other services, by the names in the variables: PENSTOCK_<NAME>_ADDRESS."""
    return {
        name.removeprefix("PENSTOCK_").removesuffix("_ADDRESS").lower(): value
        for name, value in variables.items()
        if name.endswith("_ADDRESS") and value
    }


def listen_variables(variables: Mapping[str, str]) -> dict[str, int]:
    """The ports that are opened, by port name."""
    ports = {}
    for name, value in variables.items():
        if name == "PENSTOCK_LISTEN":
            ports[LISTEN] = int(value.rpartition(":")[2])
        elif name.startswith("PENSTOCK_") and name.endswith("_LISTEN") and value:
            port_name = name.removeprefix("PENSTOCK_").removesuffix("_LISTEN").lower()
            ports[port_name] = int(value.rpartition(":")[2])
    return ports


def differences(
    service: str, variables: Mapping[str, str], service_at: Callable[[str], str]
) -> list[str]:
    """How a deployment's variables for a service differ from its entry.

    Args:
        service: its name in the file.
        variables: its environment.
        service_at: the service at an address.
    """
    entry = FILE.services[service]
    problems = []
    for name, port in listen_variables(variables).items():
        if entry.ports.get(name) != port:
            problems.append(f"{service} listens on {port} for `{name}`; ports: {entry.ports}")
    addresses = address_variables(variables)
    registry = addresses.pop(REGISTRY, None)  # the router's other port
    if registry is not None and host_port(registry)[1] != FILE.services["router"].ports[REGISTRY]:
        problems.append(f"{service}'s registry is at {registry}")
    if set(addresses) != entry.calls:
        problems.append(
            f"{service} has the addresses of {sorted(addresses)}; calls: {sorted(entry.calls)}"
        )
    problems += [
        f"{service}'s address of {callee} is {address}, where {service_at(address)} answers"
        for callee, address in addresses.items()
        if service_at(address) != callee
    ]
    exported_to = variables.get("PENSTOCK_OTLP_ENDPOINT", "")
    exporter = service != FILE.every_service.exports_to
    if (service_at(exported_to) if exported_to else None) != (
        FILE.every_service.exports_to if exporter else None
    ):
        problems.append(f"{service} exports its spans to {exported_to or 'nobody'}")
    store = f"PENSTOCK_{entry.store.upper()}_URL" if entry.store else ""
    if store and not variables.get(store):
        problems.append(f"{service} keeps state in a store and has no {store}")
    return problems


def store_problems(store: str, command: Sequence[str]) -> list[str]:
    """What is wrong with the command of a store's container: the ledger's never evicts and syncs
    every second, the cache's is bounded and evicts what was used longest ago.
    """
    options = {name: value for name, value in itertools.pairwise(command) if name.startswith("--")}
    wanted = {"--appendonly": "yes", "--appendfsync": "everysec"}
    wanted["--maxmemory-policy"] = "noeviction" if store == "ledger" else "allkeys-lru"
    problems = [
        f"redis-{store}: {name} is {options.get(name)}, not {value}"
        for name, value in wanted.items()
        if options.get(name) != value
    ]
    if ("--maxmemory" in options) != (store == "cache"):
        problems.append(f"redis-{store}: --maxmemory is {options.get('--maxmemory')}")
    return problems


def host_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`."""
    host, _, port = address.rpartition(":")
    return host, int(port)
