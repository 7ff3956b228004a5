"""A stack of processes for one test or one module, and the call that all these tests make."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import yaml
from penstock.api.router.v1 import router_pb2 as pb
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.shapes import Layout, Shape
from penstock.stack.stack import Stack, WholeStack, run_stack
from rich.console import Console

KEYS = {"acme": "psk-e2e", "globex": "psk-e2e-second"}
KEY = KEYS["acme"]
INSTANCES = ("inference-1", "inference-2")


@contextlib.asynccontextmanager
async def stack_in(
    folder: Path, home: Path, shape: Shape, *, chat: bool = False, tls: bool = False
) -> AsyncIterator[WholeStack]:
    """A stack with its data in `folder` and the models of `home`; afterwards no process is left."""
    (folder / "models").symlink_to(home / "models")
    config = folder / "penstock.yaml"
    api_keys = [api_key(name, key) for name, key in KEYS.items()]
    config.write_text(yaml.safe_dump({"keys": {"api": api_keys}}))
    before = set(psutil.Process().children(recursive=True))
    log = LogStream(Console(quiet=True))
    layout = Layout(shape)
    running = run_stack(ports.free(), folder, config, KEYS, log, layout, chat=chat, tls=tls)
    async with running as stack:
        await stack.wait_for_instances(DEFAULT_MODEL, len(INSTANCES), "acme")
        yield stack
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, "a process outlived its stack"


async def embed(stack: Stack, text: str = "hello") -> pb.EmbedResponse:
    """Embed a text as the tenant acme."""
    request = pb.EmbedRequest(texts=[text])
    answer: pb.EmbedResponse = await stack.router.Embed(
        request, metadata=stack.metadata("acme"), timeout=20
    )
    return answer
