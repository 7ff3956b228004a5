"""Services as processes, one of which is lost: requests still flow, and receipts say what is lost.

Each test has its own stack.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from penstock.stack.stack import Stack
from running_stack import embed, stack_in

pytestmark = [pytest.mark.processes]


@pytest_asyncio.fixture
async def stack(home: Path, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path, home) as started:
        yield started


async def test_telemetry_killed_requests_still_flow(stack: Stack) -> None:
    child = stack.supervisor.child("telemetry")
    assert child is not None
    child.kill()
    assert (await embed(stack, "still served")).embeddings


@pytest.mark.parametrize(
    ("name", "said"),
    [("telemetry", "telemetry unavailable"), ("redis-ledger", "the store is unavailable")],
)
async def test_what_is_lost_is_said_in_the_receipt_and_requests_still_flow(
    stack: Stack, name: str, said: str
) -> None:
    await stack.supervisor.stop_one(name)
    async with asyncio.timeout(60):
        while not any(said in note for note in (await embed(stack)).receipt.notes):
            await asyncio.sleep(0.2)


async def test_a_killed_instance_costs_no_answer(stack: Stack) -> None:
    child = stack.supervisor.child("inference-1")
    assert child is not None
    child.kill()
    answers = await asyncio.gather(
        *(embed(stack, f"after the loss {number}") for number in range(20))
    )
    assert all(answer.embeddings for answer in answers)
