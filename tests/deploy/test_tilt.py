"""The Tiltfiles: their resources against deploy/services.yaml, and their commands run for real.

Tilt itself is not installed; see `tilt_recorder`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.stack import ports
from penstock.testkit.eventually import eventually
from services_file import FILE, ROOT, STORES, differences, host_port, package_of
from tilt_recorder import TiltRecorder

START_S = 60.0
TILT = ROOT / "tilt"
BY_HAND = "inference-upstream"
Resource = dict[str, Any]


@pytest.fixture(scope="module")
def resources() -> dict[str, Resource]:
    """Every local resource by name."""
    return TiltRecorder(k8s=False).by_name("local_resource")


@pytest.fixture(scope="module")
def services(resources: dict[str, Resource]) -> dict[str, Resource]:
    """The resources that run a service, by the service."""
    return {service_of(row): row for row in resources.values() if "serve_env" in row}


def service_of(resource: Resource) -> str:
    packages = {package_of(service): service for service in FILE.services}
    return packages[resource["serve_cmd"].split("-m penstock.")[1]]


def test_every_service_is_a_resource(services: dict[str, Resource]) -> None:
    assert set(services) == set(FILE.services)


def test_every_service_has_the_ports_and_addresses_of_its_entry(
    services: dict[str, Resource],
) -> None:
    by_port = {entry.port: name for name, entry in FILE.services.items()}

    def service_at(address: str) -> str:
        return by_port[host_port(address)[1]]

    problems = [
        problem
        for service, row in services.items()
        for problem in differences(service, row["serve_env"], service_at)
    ]
    assert problems == []


def test_a_service_restarts_when_its_own_code_or_a_library_of_its_changes(
    services: dict[str, Resource],
) -> None:
    for service, row in services.items():
        folders = {(TILT / path).resolve() for path in row["deps"]}
        assert ROOT / "services" / service / "src" in folders
        libraries = {path.parent.name for path in folders if path.parent.parent == ROOT / "libs"}
        assert libraries == FILE.libraries_of(service), service
        assert all(path.exists() for path in folders), service


def test_a_service_waits_for_its_store_for_telemetry_and_for_those_that_it_calls(
    services: dict[str, Resource], resources: dict[str, Resource]
) -> None:
    names = {
        service: name
        for name, row in resources.items()
        for service in services
        if services[service] is row
    }
    for service, row in services.items():
        waits_for = set(row["resource_deps"])
        assert waits_for <= set(resources), service
        store = FILE.services[service].store
        stores = {name for name in waits_for if name.startswith("redis-")}
        assert stores == ({f"redis-{store}"} if store else set()), service
        assert (names["telemetry"] in waits_for) == (service != "telemetry")
        callees = {"router"} if service == "console" else FILE.services[service].calls
        assert {names[callee] for callee in callees} <= waits_for, service


def test_resources_have_labels_readiness_checks_and_links(
    resources: dict[str, Resource], services: dict[str, Resource]
) -> None:
    assert all(row["labels"] for row in resources.values())
    assert all(row["readiness_probe"] for row in resources.values() if "serve_cmd" in row)
    with_links = {service for service, row in services.items() if row["links"]}
    assert with_links == {"console", "telemetry"}


def test_what_needs_more_configuration_is_started_by_hand(
    resources: dict[str, Resource], services: dict[str, Resource]
) -> None:
    by_hand = {service for service, row in services.items() if not row["auto_init"]}
    assert by_hand == {BY_HAND}
    assert (resources["demo"]["auto_init"], resources["demo"]["trigger_mode"]) == (False, "manual")


@pytest.mark.parametrize("name", ["setup", "demo"])
def test_a_command_that_ends_is_a_make_target(resources: dict[str, Resource], name: str) -> None:
    targets = resources[name]["cmd"].split()[1:]
    dry_run = subprocess.run(
        ["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert dry_run.returncode == 0, dry_run.stderr


def test_with_k8s_tilt_builds_every_deployed_image_and_deploys_the_dev_overlay() -> None:
    tilt = TiltRecorder(k8s=True)
    images = tilt.by_name("docker_build")
    assert {row["build_args"]["SERVICE"] for row in images.values()} == {*FILE.services} - {BY_HAND}
    base = (ROOT / "deploy/k8s/base").glob("*.yaml")
    deployed = re.findall(r"image: (penstock/\S+)", "".join(path.read_text() for path in base))
    assert set(images) == set(deployed)
    (folder,) = tilt.first_arguments("kustomize")
    assert (TILT / folder / "kustomization.yaml").exists()


def test_with_k8s_models_are_loaded_once_their_claim_is_there() -> None:
    models = TiltRecorder(k8s=True).by_name("local_resource")["models"]
    assert models["resource_deps"] == ["redis-ledger"]
    script = models["cmd"].split(" && ")[1]
    assert os.access(ROOT / script, os.X_OK)


@dataclass(frozen=True)
class LocalProcess:
    """A resource that serves, on free ports and with its data in a folder of the test."""

    argv: list[str]
    waits_for: set[str]
    env: dict[str, str]

    async def is_ready(self) -> bool:
        """Whether the port accepts a connection, or the socket of a store, as Tilt checks it."""
        listen = self.env.get("PENSTOCK_LISTEN")
        if listen:
            host, port = host_port(listen)
            _, writer = await asyncio.open_connection(host, port)
        else:
            _, writer = await asyncio.open_unix_connection(self.argv[-1])
        writer.close()
        return True


def on_free_ports(
    resources: Mapping[str, Resource], folder: Path, home: Path
) -> dict[str, LocalProcess]:
    """The resources that start by themselves, moved where they meet nobody."""
    moved = dict(zip(ports.documented().values(), ports.free().values(), strict=True))
    for store in STORES:
        socket = f"tilt-{store}.sock"
        moved[f"unix://{TILT}/../.penstock/{socket}"] = f"unix://{folder}/{socket}"
    processes = {}
    for name, row in resources.items():
        if "serve_cmd" not in row or not row.get("auto_init", True):
            continue
        service = service_of(row) if "serve_env" in row else ""
        reads_models = bool(service) and FILE.services[service].models
        env = {key: moved.get(value, value) for key, value in row.get("serve_env", {}).items()}
        env["PENSTOCK_HOME"] = str(home if reads_models else folder)
        argv = shlex.split(row["serve_cmd"].replace(".penstock/tilt-", f"{folder}/tilt-"))
        processes[name] = LocalProcess(argv, set(row["resource_deps"]), env)
    return processes


@contextlib.asynccontextmanager
async def running(
    processes: Mapping[str, LocalProcess],
) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    """Start each process once those that it waits for are ready; terminate all at the end."""
    children: dict[str, asyncio.subprocess.Process] = {}
    try:
        while len(children) < len(processes):
            startable = [
                name
                for name, process in processes.items()
                if name not in children and process.waits_for <= {"setup", *children}
            ]
            assert startable, "resources wait for each other in a circle"
            for name in startable:
                children[name] = await start(processes[name])
            await asyncio.gather(*(wait_ready(processes[name]) for name in startable))
        yield children
    finally:
        for child in reversed(children.values()):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            await child.wait()


async def start(process: LocalProcess) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *process.argv,
        cwd=ROOT,
        env={**os.environ, **process.env},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def wait_ready(process: LocalProcess) -> None:
    await eventually(process.is_ready, START_S, every_s=0.05, not_yet=(OSError,))


@pytest.mark.processes
async def test_the_local_commands_run_and_serve_a_call(
    resources: dict[str, Resource], tmp_path_factory: pytest.TempPathFactory, home: Path
) -> None:
    folder = tmp_path_factory.mktemp("t")
    processes = on_free_ports(resources, folder, home)
    async with running(processes) as children:
        address = processes["router"].env["PENSTOCK_LISTEN"]
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await router_pb2_grpc.RouterServiceStub(channel).Embed(
                router_pb2.EmbedRequest(texts=["where is my order"]),
                metadata=(("authorization", "Bearer psk-development"),),
                timeout=START_S,
                wait_for_ready=True,
            )
        assert len(answer.embeddings[0].values) == 384
        assert [name for name, child in children.items() if child.returncode is not None] == []
    failed = {name: child.returncode for name, child in children.items() if child.returncode}
    assert failed == {}
