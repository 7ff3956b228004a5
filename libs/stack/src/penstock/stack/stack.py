"""A running stack: started from a plan, used through `Stack`, stopped by whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import CannotStart
from penstock.service.service_tokens import TokenFile
from penstock.service.socket_paths import socket_folder
from penstock.service.tls_files import TlsSource
from penstock.stack.following import processes_of
from penstock.stack.identities import STAND_IN, write_identities
from penstock.stack.instance_groups import LocalConfig, read_local_config
from penstock.stack.local_fleet import LocalFleet
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.shapes import DEFAULT_LAYOUT, Layout
from penstock.stack.supervisor import Supervisor
from penstock.stack.workers import first_address
from penstock.testkit.registered import InstanceIdentity

T = TypeVar("T")
TOKEN_FILE = "internal-token"
INSTANCES_READY_S = 60.0
POLL_S = 0.1
CONNECTIONS_ASKED = 16
"""New connections that several cells share: each cell has some of them, as good as surely."""


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

    @property
    def tls(self) -> TlsSource | None:
        """An operator's certificate; None for plaintext."""
        return self.plan.tls

    def registering(self) -> InstanceIdentity:
        """What an instance that is served here proves itself with."""
        identities = self.plan.identities
        if identities is None:
            return InstanceIdentity(self.internal_token)
        tokens = TokenFile(identities.tokens_file("inference-onnx-quantized"))
        return InstanceIdentity(self.internal_token, tokens, identities.tls(STAND_IN))

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
        """As many as every cell knows."""
        metadata = self.metadata(tenant)

        async def ready_at(channel: grpc.aio.Channel) -> int:
            answer = await router_pb2_grpc.RouterServiceStub(channel).ListModels(
                router_pb2.ListModelsRequest(), metadata=metadata
            )
            of_model = (row.ready_instances for row in answer.models if row.name == model)
            return max(of_model, default=0)

        return min(await self._of_cells("router", ready_at, 0))

    async def _of_cells(
        self, name: str, ask: Callable[[grpc.aio.Channel], Awaitable[T]], silent: T
    ) -> list[T]:
        """What the cells behind a port answer; `silent` for one that a busy machine does not let
        answer. As many new connections as it takes for each cell to have some: a cell learns a
        moment later of what registered at another one.
        """
        answers = []
        for _ in range(CONNECTIONS_ASKED if self.plan.workers > 1 else 1):
            async with open_channel(self.addresses[name], self.tls) as channel:
                try:
                    answers.append(await ask(channel))
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    answers.append(silent)
        return answers


@dataclass(frozen=True)
class WholeStack(Stack):
    """A stack with the instances and upstreams of its configuration.

    Attributes:
        fleet: the instances and upstreams.
        config: what the configuration says of them, as it was at the start.
    """

    fleet: LocalFleet
    config: LocalConfig

    async def wait_for_fleet(self) -> None:
        """Wait until the router may give work to every instance that was started here.

        Raises:
            CannotStart: it may not within a minute.
        """
        end_s = time.monotonic() + INSTANCES_READY_S
        while missing := await self._missing_instances():
            if time.monotonic() >= end_s:
                raise CannotStart(
                    f"instances of {', '.join(missing)} are not ready after {INSTANCES_READY_S:g} s"
                )
            await asyncio.sleep(POLL_S)

    async def _missing_instances(self) -> list[str]:
        """The models that fewer instances serve, at some cell, than were started here."""
        counts = self.fleet.counts()
        metadata = ((TOKEN_KEY, self.internal_token),)

        async def missing_at(channel: grpc.aio.Channel) -> set[str]:
            answer = await router_pb2_grpc.RegistryServiceStub(channel).ListFleets(
                router_pb2.ListFleetsRequest(), metadata=metadata
            )
            serving = {fleet.model: fleet.serving for fleet in answer.fleets}
            return {model for model, count in counts.items() if serving.get(model, 0) < count}

        return sorted(set().union(*await self._of_cells("registry", missing_at, set(counts))))


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
    tls: bool = False,
) -> AsyncIterator[WholeStack]:
    """Start a stack, yield it once it serves, and stop all its processes afterwards.

    Args:
        addresses: see `ports.documented` and `ports.free`.
        home: folder of models and data.
        config_file: the YAML file for all services.
        keys: API keys by tenant; the console uses the first.
        log: takes the output of all processes.
        layout: which services share a process, and how many cells there are.
        chat: whether an instance of the chat model runs as well.
        tls: whether all of it speaks TLS, by certificates of a development authority.

    Raises:
        BadConfig: the instances of the configuration cannot be read.
        CannotStart: a process refused to start or is not ready in time.
    """
    config = read_local_config(config_file, home)
    token = internal_token(home)
    identities = write_identities(home, token, tls=tls)
    with socket_folder() as sockets:
        plan = StackPlan(
            addresses=addresses,
            home=home,
            sockets=sockets,
            config_file=config_file,
            token=token,
            external_ledger_url=os.environ.get("PENSTOCK_LEDGER_URL", ""),
            external_cache_url=os.environ.get("PENSTOCK_CACHE_URL", ""),
            api_key=next(iter(keys.values()), ""),
            chat=chat,
            own_pool=config.groups is None,
            profile=layout.profile,
            shape=layout.shape,
            workers=layout.workers,
            first_cell_address=first_address(os.environ),
            identities=identities,
            tls=identities.tls(),
        )
        async with _running(plan, config, keys, log) as stack:
            yield stack


@contextlib.asynccontextmanager
async def _running(
    plan: StackPlan, config: LocalConfig, keys: Mapping[str, str], log: LogStream
) -> AsyncIterator[WholeStack]:
    supervisor = Supervisor(log, functools.partial(is_ready, tls=plan.tls))
    fleet = LocalFleet(supervisor, plan, log)
    channel: grpc.aio.Channel | None = None
    try:
        *stages, last = plan.service_stages()
        for stage in stages:
            await supervisor.start(stage)
        first = fleet.start(processes_of(plan, config, {}))
        await asyncio.gather(supervisor.start(last), first)
        channel = open_channel(plan.addresses["router"], plan.tls)
        router = router_pb2_grpc.RouterServiceStub(channel)
        yield WholeStack(plan, supervisor, router, keys, fleet, config)
    finally:
        if channel is not None:
            await channel.close()
        await supervisor.stop()
