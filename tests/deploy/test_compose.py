"""deploy/compose.yaml against deploy/services.yaml and the services' settings.

Not checked here: that the images build, because there is no container engine.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import yaml
from services_file import FILE, ROOT, STORES, Entry, differences, host_port, store_problems
from settings_read import variables_read

MODELS = "/var/lib/penstock/models"
CONTAINERS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())[
    "services"
]
OURS = {
    name: container["build"]["args"]["SERVICE"]
    for name, container in CONTAINERS.items()
    if "build" in container
}
"""Container to service."""


def entry_of(container: str) -> Entry:
    return FILE.services[OURS[container]]


def test_every_service_has_a_container() -> None:
    assert set(OURS.values()) == set(FILE.services)


@pytest.mark.parametrize("container", sorted(OURS))
def test_a_container_has_the_ports_and_addresses_of_its_entry(container: str) -> None:
    def service_at(address: str) -> str:
        host, port = host_port(address)
        assert port == entry_of(host).port, address
        return OURS[host]

    variables = CONTAINERS[container]["environment"]
    assert differences(OURS[container], variables, service_at) == []


@pytest.mark.parametrize("container", sorted(OURS))
def test_a_container_has_only_variables_that_its_service_reads(container: str) -> None:
    assert set(CONTAINERS[container]["environment"]) <= variables_read(OURS[container])


@pytest.mark.parametrize("container", sorted(OURS))
def test_a_container_is_reached_by_its_own_name(container: str) -> None:
    entry = entry_of(container)
    if entry.protocol == "grpc":
        variables = CONTAINERS[container]["environment"]
        assert variables["PENSTOCK_ADVERTISE"] == f"{container}:{entry.port}"


@pytest.mark.parametrize("container", sorted(OURS))
def test_a_container_mounts_the_configuration_and_models_where_they_are_read(
    container: str,
) -> None:
    mounted = {volume.split(":")[1] for volume in CONTAINERS[container]["volumes"]}
    config_file = CONTAINERS[container]["environment"]["PENSTOCK_CONFIG_FILE"]
    assert mounted == {config_file, MODELS} if entry_of(container).models else {config_file}


@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_every_container_has_a_health_check(container: str) -> None:
    command = CONTAINERS[container]["healthcheck"]["test"]
    assert command[0] == "CMD"
    if container not in OURS:
        return
    entry = entry_of(container)
    if entry.protocol == "grpc":
        assert importlib.util.find_spec(command[-1])
    else:
        assert str(entry.port) in command[-1]


def test_ports_are_published_on_the_loopback_address_only() -> None:
    published = [port for container in CONTAINERS.values() for port in container.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") and port.count(":") == 2 for port in published)


@pytest.mark.parametrize("store", STORES)
def test_each_store_is_reached_by_its_name_on_the_port_of_the_file(store: str) -> None:
    urls = {
        container["environment"][f"PENSTOCK_{store.upper()}_URL"]
        for container in map(CONTAINERS.get, OURS)
    }
    assert urls == {f"redis://redis-{store}:{FILE.store.port}/0"}
    waited_for = {name for each in OURS for name in CONTAINERS[each]["depends_on"]}
    assert f"redis-{store}" in waited_for


@pytest.mark.parametrize("store", STORES)
def test_each_store_keeps_its_data_apart_and_only_the_caches_is_bounded(store: str) -> None:
    container = CONTAINERS[f"redis-{store}"]
    assert container["volumes"] == [f"redis-{store}:/data"]
    assert store_problems(store, container["command"]) == []
