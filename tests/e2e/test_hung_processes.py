"""One process of a stack is stopped (SIGSTOP) and goes on later: requests are served meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from penstock.stack.stack import Stack
from penstock.testkit.eventually import eventually
from running_stack import embed, stack_in

pytestmark = [pytest.mark.processes]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("hung"), home, "processes") as started:
        yield started


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["cache", "batcher", "telemetry", "inference-1"])
async def test_requests_are_served_while_a_process_is_stopped(stack: Stack, name: str) -> None:
    child = stack.supervisor.child(name)
    assert child is not None and (await embed(stack, f"before {name}")).embeddings
    os.kill(child.pid, signal.SIGSTOP)
    try:
        for number in range(20):
            assert (await embed(stack, f"while {name} is stopped, {number}")).embeddings
    finally:
        os.kill(child.pid, signal.SIGCONT)

    async def whole_again() -> bool:
        answer = await embed(stack, f"after {name}, {os.urandom(4).hex()}")
        return not any("unavailable" in note for note in answer.receipt.notes)

    await eventually(whole_again, 30, every_s=0.2)
