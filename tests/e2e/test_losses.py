"""One process of a stack is lost: requests are still served, and receipts name the loss.

Each test has a stack of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from penstock.stack.shapes import BESIDE, SHAPES
from penstock.stack.stack import Stack
from penstock.testkit.eventually import eventually
from running_stack import embed, stack_in

pytestmark = [pytest.mark.processes]
NOTE_WAIT_S = 60


@pytest_asyncio.fixture(params=SHAPES)
async def stack(home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path, home, request.param) as started:
        yield started


def process_of(stack: Stack, service: str) -> str:
    """The name of the process that runs a service."""
    return "beside" if stack.plan.shape == "cell" and service in BESIDE else service


def kill(stack: Stack, service: str) -> None:
    child = stack.supervisor.child(process_of(stack, service))
    assert child is not None
    child.kill()


@pytest.mark.fault(22)
async def test_requests_are_served_while_telemetry_is_down(stack: Stack) -> None:
    kill(stack, "telemetry")
    assert (await embed(stack, "still served")).embeddings


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("name", "note"),
    [("telemetry", "telemetry unavailable"), ("redis-ledger", "the store is unavailable")],
)
async def test_the_receipt_names_a_stopped_process_and_requests_are_served(
    stack: Stack, name: str, note: str
) -> None:
    await stack.supervisor.stop_one(process_of(stack, name))

    async def receipt_has_note() -> bool:
        return any(note in line for line in (await embed(stack)).receipt.notes)

    await eventually(receipt_has_note, NOTE_WAIT_S, every_s=0.2)


@pytest.mark.fault(13)
async def test_no_request_fails_when_an_instance_is_killed(stack: Stack) -> None:
    kill(stack, "inference-1")
    answers = await asyncio.gather(*(embed(stack, f"after the loss {n}") for n in range(20)))
    assert all(answer.embeddings for answer in answers)
