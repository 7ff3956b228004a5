"""A running stack: started from a plan, used through `Stack`, stopped by whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import CannotStart
from penstock.service.settings import read_file
from penstock.service.store import socket_folder
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.shapes import DEFAULT_LAYOUT, Layout
from penstock.stack.supervisor import Supervisor
from penstock.stack.workers import first_address

TOKEN_FILE = "internal-token"
INSTANCES_READY_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Stack:
    """A stack that serves. `keys` are API keys by tenant."""

    plan: StackPlan
    supervisor: Supervisor
    router: router_pb2_grpc.RouterServiceStub
    keys: Mapping[str, str]

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where each process answers, by the names of `ports.PORTS`."""
        return self.plan.addresses

    @property
    def internal_token(self) -> str:
        """The secret of the internal ports."""
        return self.plan.token

    def metadata(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """The gRPC metadata of a tenant's calls."""
        return (("authorization", f"Bearer {self.keys[tenant]}"),)

    async def wait_for_instances(self, model: str, count: int, tenant: str) -> None:
        """Wait until `count` instances serve a model; `tenant` is whose key asks.

        Raises:
            CannotStart: they do not within a minute.
        """
        end_s = time.monotonic() + INSTANCES_READY_S
        while await self._ready_instances(model, tenant) < count:
            if time.monotonic() >= end_s:
                raise CannotStart(
                    f"{count} instances of {model} are not ready after {INSTANCES_READY_S:g} s"
                )
            await asyncio.sleep(POLL_S)

    async def _ready_instances(self, model: str, tenant: str) -> int:
        answer = await self.router.ListModels(
            router_pb2.ListModelsRequest(), metadata=self.metadata(tenant)
        )
        return max((row.ready_instances for row in answer.models if row.name == model), default=0)


def internal_token(home: Path) -> str:
    """The secret of the internal ports of the stack in `home`.

    It is PENSTOCK_INTERNAL_TOKEN, or the content of a file that only its owner can read and that is
    made here.

    Raises:
        CannotStart: the folder cannot be written.
    """
    given = os.environ.get("PENSTOCK_INTERNAL_TOKEN")
    if given:
        return given
    path = home / TOKEN_FILE
    try:
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        return path.read_text()
    except OSError as error:
        raise CannotStart(
            f"{path}: {error.strerror}; name a writable folder with PENSTOCK_HOME"
        ) from None


def _first_upstream(config_file: Path) -> str:
    """Name of the first upstream in the file, or an empty string.

    Only the first gets a process here; others are started by hand or by an orchestrator.
    """
    servers = (read_file(config_file).get("upstreams") or {}).get("servers") or [{}]
    return str(servers[0].get("name", ""))


@contextlib.asynccontextmanager
async def run_stack(
    addresses: Mapping[str, str],
    home: Path,
    config_file: Path,
    keys: Mapping[str, str],
    log: LogStream,
    layout: Layout = DEFAULT_LAYOUT,
    *,
    chat: bool = False,
) -> AsyncIterator[Stack]:
    """Start a stack, yield it once it serves, and stop all its processes afterwards.

    Args:
        addresses: see `ports.documented` and `ports.free`.
        home: folder of models and data.
        config_file: the YAML file for all services.
        keys: API keys by tenant; the console uses the first.
        log: takes the output of all processes.
        layout: which services share a process, and how many cells there are.
        chat: whether an instance of the chat model runs as well.

    Raises:
        CannotStart: a process refused to start or is not ready in time.
    """
    plan = StackPlan(
        addresses=addresses,
        home=home,
        sockets=socket_folder(),
        config_file=config_file,
        token=internal_token(home),
        external_ledger_url=os.environ.get("PENSTOCK_LEDGER_URL", ""),
        external_cache_url=os.environ.get("PENSTOCK_CACHE_URL", ""),
        api_key=next(iter(keys.values()), ""),
        upstream_name=_first_upstream(config_file),
        chat=chat,
        shape=layout.shape,
        workers=layout.workers,
        first_cell_address=first_address(os.environ),
    )
    supervisor = Supervisor(log, is_ready)
    channel: grpc.aio.Channel | None = None
    try:
        for stage in plan.stages():
            await supervisor.start(stage)
        channel = open_channel(addresses["router"])
        yield Stack(plan, supervisor, router_pb2_grpc.RouterServiceStub(channel), keys)
    finally:
        if channel is not None:
            await channel.close()
        await supervisor.stop()
        shutil.rmtree(plan.sockets, ignore_errors=True)
