"""Cells as `make up` runs them, with a store and one scripted instance beside them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.service.socket_paths import socket_folder
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.supervisor import RestartPolicy, Supervisor
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import OneByOneInstance
from penstock.testkit.registered import Registration, registered_instance

TOKEN = "the-token-of-the-cell"
MODEL = "scripted"
WIDE = {"name": "wide", "kind": "rate", "counts": "requests", "limit": 10**6, "window": "minute"}


class Instance(OneByOneInstance):
    """Embeds everything as one number; a text that begins with `held` waits for its release."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if request.task.embed.texts[0].startswith("held"):
            self.started.set()
            await self.release.wait()
        embedding = inference_pb2.Embedding(values=[1.0])
        embedded = inference_pb2.EmbedResult(embeddings=[embedding])
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(embed=embedded))


@dataclass
class Running:
    """A cell that serves."""

    plan: StackPlan
    supervisor: Supervisor
    lines: list[str]
    channel: grpc.aio.Channel
    instance: Instance

    async def embed(self, text: str, key: str = "psk-acme") -> pb.EmbedResponse:
        options = pb.CallOptions(model=MODEL)
        request = pb.EmbedRequest(options=options, texts=[text])
        metadata = (("authorization", f"Bearer {key}"),)
        router = router_pb2_grpc.RouterServiceStub(self.channel)
        answer: pb.EmbedResponse = await router.Embed(request, metadata=metadata, timeout=20)
        return answer

    def configure(self, tenants: tuple[str, ...], rules: list[dict[str, Any]]) -> None:
        keys = [api_key(name, f"psk-{name}") for name in tenants]
        content = {"keys": {"api": keys}, "limits": {"rules": rules}}
        self.plan.config_file.write_text(yaml.safe_dump(content))

    def send(self, number: signal.Signals, name: str = "cell") -> None:
        child = self.supervisor.child(name)
        assert child is not None
        os.kill(child.pid, number)

    async def wait_for_line(self, part: str, times: int = 1) -> None:
        await eventually(lambda: sum(part in line for line in self.lines) >= times, 30)


@contextlib.asynccontextmanager
async def running(
    folder: Path, workers: int, rules: Sequence[Any] = (WIDE,)
) -> AsyncIterator[Running]:
    """The cells with their stores, before one instance."""
    with socket_folder() as sockets:
        async with _running(folder, sockets, workers, rules) as cells:
            yield cells


@contextlib.asynccontextmanager
async def _running(
    folder: Path, sockets: Path, workers: int, rules: Sequence[Any]
) -> AsyncIterator[Running]:
    plan = StackPlan(
        ports.free(),
        folder,
        sockets,
        folder / "penstock.yaml",
        TOKEN,
        shape="cell",
        workers=workers,
    )
    lines: list[str] = []
    restart = RestartPolicy(initial_s=0.01)
    supervisor = Supervisor(lambda name, line: lines.append(f"{name}: {line}"), is_ready, restart)
    channel = open_channel(plan.addresses["router"])
    started = Running(plan, supervisor, lines, channel, Instance())
    started.configure(("acme",), list(rules))
    try:
        for stage in plan.request_path(traced=False):
            await supervisor.start(stage)
        registration = Registration("one", MODEL, concurrency=4)
        address = plan.addresses["registry"]
        async with registered_instance(started.instance, registration, address, TOKEN):
            yield started
    finally:
        await channel.close()
        await supervisor.stop()


async def until_served(cells: Running) -> None:
    """Wait until the instance answers; each text is new, so that no cache does."""
    texts = (f"is it there? {uuid.uuid4()}" for _ in itertools.count())

    async def served() -> bool:
        try:
            await cells.embed(next(texts))
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(served, 30)
