"""The bounded queue of facts that other routers should know."""

from __future__ import annotations

import asyncio

import pytest
from penstock.router.runs import facts
from penstock.router.runs.facts import Fact, Outbox


def numbered(number: int) -> Fact:
    return Fact("acme", str(number), cancelled=True)


async def test_facts_leave_in_order_and_stay_until_they_are_dropped() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.add(numbered(number))
    assert outbox.first(2) == outbox.first(2) == [numbered(0), numbered(1)]
    outbox.drop(2)
    assert (outbox.first(9), len(outbox)) == ([numbered(2)], 1)
    outbox.clear()
    assert len(outbox) == 0


async def test_the_sender_waits_until_there_is_something_to_tell() -> None:
    outbox = Outbox()
    outbox.add(numbered(0))
    await outbox.wait()
    outbox.drop(1)
    waiting = asyncio.create_task(outbox.wait())
    done, _ = await asyncio.wait([waiting], timeout=0)
    assert not done
    outbox.add(numbered(1))
    await asyncio.wait_for(waiting, 5)


async def test_where_too_many_wait_the_oldest_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts, "MAX_WAITING", 2)
    outbox = Outbox()
    for number in range(3):
        outbox.add(numbered(number))
    assert outbox.first(9) == [numbered(1), numbered(2)]
