"""deploy/services.yaml against the services themselves: folders, settings, stores, dependencies."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from penstock.rpc.callers import CALLS, INSTANCE, REGISTERS, SERVED_BY
from penstock.service.settings import ServiceSettings
from services_file import FILE, LISTEN, ROOT, Entry, host_port, package_of

SERVICES = sorted(FILE.services)


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings class that a service defines."""
    module = importlib.import_module(f"penstock.{package_of(service)}.settings")
    (kind,) = (
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, ServiceSettings)
        and kind.__module__ == module.__name__
    )
    return kind


def project_of(folder: Path) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def libraries_of(folder: Path) -> set[str]:
    """The libraries that a member of this repository needs, directly and through others.

    The extra `cpu` counts, because an image without a runtime could not compute.
    """
    project = project_of(folder)
    extras = project.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    needed = [*project["dependencies"], *extras.get("cpu", ())]  # type: ignore[misc]  # from TOML
    direct = {match[1] for text in needed if (match := re.match(r"penstock-([a-z]+)", text))}
    return direct | {name for library in direct for name in libraries_of(ROOT / "libs" / library)}


def test_every_folder_of_services_has_an_entry_and_every_entry_a_folder() -> None:
    folders = {folder.name for folder in (ROOT / "services").iterdir() if folder.is_dir()}
    assert set(FILE.services) == folders


def test_calls_and_callers_outside_name_what_exists() -> None:
    for name, entry in FILE.services.items():
        assert entry.calls <= set(FILE.services), name
        assert set(entry.open_to) <= set(entry.ports), name
    assert FILE.every_service.exports_to in FILE.services


def test_what_ports_enforce_is_what_the_file_says() -> None:
    calls = {name: entry.calls for name, entry in FILE.services.items()}
    assert calls == CALLS
    registering = {name for name, entry in FILE.services.items() if entry.registers}
    assert registering == REGISTERS
    assert set(SERVED_BY.values()) <= {*FILE.services, INSTANCE}


def test_no_port_is_used_twice() -> None:
    ports = [port for entry in FILE.services.values() for port in entry.ports.values()]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_have_the_ports_and_the_addresses_of_the_entry(service: str) -> None:
    entry: Entry = FILE.services[service]
    fields = settings_of(service).model_fields
    listening = {name.removesuffix("_listen") for name in fields if name.endswith("_listen")}
    assert set(entry.ports) == {LISTEN, *listening}
    assert host_port(fields["listen"].default) == ("127.0.0.1", entry.port)
    addresses = {name.removesuffix("_address") for name in fields if name.endswith("_address")}
    addresses -= {"cell", "registry"}  # its own, for other cells; the router's other port
    assert entry.calls <= addresses
    if entry.registers:
        # An instance may name a batcher of its own to the router; it does not call it.
        addresses.discard("batcher")
    assert addresses == entry.calls


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_opens_a_store_where_its_entry_says_so(service: str) -> None:
    build = ROOT / "services" / service / "src/penstock" / package_of(service) / "build.py"
    assert set(re.findall(r"settings\.(ledger|cache)_url", build.read_text())) == (
        {FILE.services[service].store} - {None}
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_depends_on_the_libraries_of_its_entry(service: str) -> None:
    assert libraries_of(ROOT / "services" / service) == FILE.libraries_of(service)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_be_started_as_a_command_and_as_a_module(service: str) -> None:
    scripts = project_of(ROOT / "services" / service)["scripts"]
    assert isinstance(scripts, dict)
    assert f"penstock-{service}" in scripts
    assert importlib.util.find_spec(f"penstock.{package_of(service)}.__main__")
