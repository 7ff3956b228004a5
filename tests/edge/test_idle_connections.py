"""Ten thousand connections that say nothing, beside callers who are served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from echoing_edge import EchoingEdge, serving_edge
from penstock.service.open_files import allow_open_files
from penstock.testkit.router import KEY

IDLE = 10_000
HOLD = """
import resource, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.create_connection((host, port)) for _ in range(count)]
print(len(held), flush=True)
sys.stdin.readline()
for each in held:
    each.setblocking(False)
open_still = 0
for each in held:
    try:
        open_still += each.recv(1) != b""
    except BlockingIOError:
        open_still += 1
    except ConnectionError:
        pass
print(open_still, flush=True)
"""
"""Another process, so that each side needs one file a connection."""


@contextlib.asynccontextmanager
async def idle_connections(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, host, port, str(IDLE)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return (await process.stdout.readline()).strip()


async def chat(client: httpx.AsyncClient, edge: EchoingEdge) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post(f"{edge.url}/v1/chat/completions", json=body)
    said: str = answer.json()["choices"][0]["message"]["content"]
    return said


async def test_ten_thousand_idle_connections_are_held_and_others_are_served() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < IDLE + 1_000:
        pytest.skip(f"the system allows fewer than {IDLE} open files")
    allow_open_files()
    async with serving_edge() as edge, idle_connections(edge.url) as process:
        assert await line_of(process) == str(IDLE).encode()
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            said = await asyncio.gather(*(chat(client, edge) for _ in range(50)))
        assert said == ["HI"] * 50
        assert process.stdin is not None
        process.stdin.write(b"\n")
        assert await line_of(process) == str(IDLE).encode()
