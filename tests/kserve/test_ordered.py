"""Requests of one stream: computed side by side, answered in their order, bounded, and ended with
the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from penstock.kserve.ordered import in_order
from penstock.testkit.eventually import eventually


class Gates:
    """Serves numbers, each of which waits until it is let through."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.open: dict[int, asyncio.Event] = {}

    def gate(self, number: int) -> asyncio.Event:
        return self.open.setdefault(number, asyncio.Event())

    async def serve(self, number: int) -> int:
        self.begun.append(number)
        try:
            await self.gate(number).wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return number * 10


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_later_requests_begin_before_earlier_ones_are_answered() -> None:
    gates = Gates()
    answers = in_order(numbers(3), gates.serve, window=8)
    first = asyncio.create_task(anext(answers))
    await eventually(lambda: gates.begun == [0, 1, 2])
    for number in (2, 1, 0):
        gates.gate(number).set()
    assert [await first, *[answer async for answer in answers]] == [0, 10, 20]


async def test_no_more_than_a_window_is_taken_in() -> None:
    gates = Gates()
    answers = in_order(numbers(5), gates.serve, window=2)
    first = asyncio.create_task(anext(answers))
    await eventually(lambda: gates.begun == [0, 1])
    for number in range(5):
        gates.gate(number).set()
    assert [await first, *[answer async for answer in answers]] == [0, 10, 20, 30, 40]
    assert gates.begun == [0, 1, 2, 3, 4]


async def test_what_is_in_flight_ends_with_the_stream() -> None:
    gates = Gates()
    gates.gate(0).set()
    async with aclosing(in_order(numbers(3), gates.serve, window=8)) as answers:
        assert await anext(answers) == 0
        await eventually(lambda: gates.begun == [0, 1, 2])
    assert sorted(gates.cancelled) == [1, 2]


async def test_a_failure_of_the_sender_is_raised_after_what_it_sent() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError("gone")

    gates = Gates()
    gates.gate(0).set()
    answers = in_order(broken(), gates.serve, window=8)
    assert await anext(answers) == 0
    with pytest.raises(ConnectionError):
        await anext(answers)
