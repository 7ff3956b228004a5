"""A running stack: started from a plan, asked for its parts, stopped.

One owner: whoever entered it.
"""

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
from penstock.stack.supervisor import Supervisor

TOKEN_FILE = "internal-token"
MODEL_READY_S = 60.0


@dataclass(frozen=True)
class Stack:
    """A stack that serves. `keys` are API keys by tenant."""

    plan: StackPlan
    supervisor: Supervisor
    router: router_pb2_grpc.RouterServiceStub
    keys: Mapping[str, str]

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where each service answers, by name."""
        return self.plan.addresses

    @property
    def internal_token(self) -> str:
        """What internal ports ask for."""
        return self.plan.token

    def metadata(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a tenant's calls."""
        return (("authorization", f"Bearer {self.keys[tenant]}"),)

    async def wait_for_instances(self, model: str, count: int, tenant: str) -> None:
        """Wait until so many instances serve a model.

        Raises:
            CannotStart: they do not within a minute.
        """
        end = time.monotonic() + MODEL_READY_S
        while time.monotonic() < end:
            answer = await self.router.ListModels(
                router_pb2.ListModelsRequest(), metadata=self.metadata(tenant)
            )
            if any(row.name == model and row.ready_instances >= count for row in answer.models):
                return
            await asyncio.sleep(0.1)
        raise CannotStart(f"{count} instances of {model} are not ready after {MODEL_READY_S:g} s")


def internal_token(home: Path) -> str:
    """The token of this home's internal ports: from PENSTOCK_INTERNAL_TOKEN, else kept in a file
    that only its owner reads.

    Raises:
        CannotStart: the home cannot be written.
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
            f"{path}: {error.strerror}; name a folder that can be written by PENSTOCK_HOME"
        ) from None


def _first_upstream(config_file: Path) -> str:
    """Name of the first upstream in the file; further ones need a process of their own, started by
    hand or by the orchestrator.
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
) -> AsyncIterator[Stack]:
    """Start a stack, yield it when it serves, stop it; no process is left."""
    upstream = _first_upstream(config_file)
    token = internal_token(home)
    sockets = socket_folder()
    redis_url = os.environ.get("PENSTOCK_REDIS_URL", "")
    api_key = next(iter(keys.values()), "")
    plan = StackPlan(
        addresses,
        home,
        sockets,
        config_file,
        token,
        redis_url,
        api_key=api_key,
        upstream_name=upstream,
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
        shutil.rmtree(sockets, ignore_errors=True)
