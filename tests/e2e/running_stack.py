"""The services as processes: a stack for the length of a test or of a module, and the call that all
tests make.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import yaml
from penstock.api.router.v1 import router_pb2 as pb
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

MODEL = "all-MiniLM-L6-v2"
KEYS = {"acme": "psk-e2e", "globex": "psk-e2e-second"}
KEY = KEYS["acme"]


@contextlib.asynccontextmanager
async def stack_in(folder: Path, home: Path) -> AsyncIterator[Stack]:
    """A stack with its data in `folder` and the models of `home`; no process is left afterwards."""
    (folder / "models").symlink_to(home / "models")
    config = folder / "penstock.yaml"
    api = [
        {"id": name, "organisation": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for name, key in KEYS.items()
    ]
    config.write_text(yaml.safe_dump({"keys": {"api": api}}))
    before = set(psutil.Process().children(recursive=True))
    log = LogStream(Console(quiet=True))
    async with run_stack(ports.free(), folder, config, KEYS, log) as started:
        await started.wait_for_instances(MODEL, 2, "acme")
        yield started
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, "a process outlived its stack"


async def embed(stack: Stack, text: str = "hello") -> pb.EmbedResponse:
    request = pb.EmbedRequest(texts=[text])
    answer: pb.EmbedResponse = await stack.router.Embed(
        request, metadata=stack.metadata("acme"), timeout=20
    )
    return answer
