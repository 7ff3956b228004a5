"""Gathered micro-work: batches form by themselves, answers find their questions, one failure stays
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from penstock.rpc.errors import Fault, exhausted, unavailable
from penstock.rpc.micro_batch import MicroBatcher


class Asked:
    """Doubles numbers when released; 13 is refused."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.release = asyncio.Event()
        self.down = False

    async def __call__(self, numbers: Sequence[int]) -> list[int | Fault]:
        self.sizes.append(len(numbers))
        await self.release.wait()
        if self.down:
            raise unavailable("gone")
        return [exhausted("unlucky") if number == 13 else 2 * number for number in numbers]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_arrives_meanwhile_goes_together() -> None:
    asked = Asked()
    gather = MicroBatcher(asked, max_batch=50)
    first = asyncio.create_task(gather(0))
    await settle()
    rest = [asyncio.create_task(gather(number)) for number in range(1, 101)]
    await settle()
    asked.release.set()
    outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert asked.sizes == [1, 50, 50]
    assert [item for index, item in enumerate(outcomes) if index != 13] == [
        2 * n for n in range(101) if n != 13
    ]
    assert isinstance(outcomes[13], Fault)


async def test_a_failed_batch_fails_its_questions_and_the_next_goes_on() -> None:
    asked = Asked()
    asked.down = True
    asked.release.set()
    gather = MicroBatcher(asked)
    with pytest.raises(Fault):
        await gather(1)
    asked.down = False
    assert await gather(4) == 8


async def test_a_cancelled_question_is_not_asked() -> None:
    asked = Asked()
    gather = MicroBatcher(asked)
    first, second, third = (asyncio.create_task(gather(number)) for number in (1, 2, 3))
    await settle()
    second.cancel()
    asked.release.set()
    assert await asyncio.gather(first, third) == [2, 6]
    late = asyncio.create_task(gather(5))
    await late
    assert asked.sizes[0] == 3 or asked.sizes == [1, 1, 1]


async def test_those_who_wait_can_be_answered_before_the_batch_is() -> None:
    asked = Asked()
    gather = MicroBatcher(asked)
    flying = asyncio.create_task(gather(1))
    await settle()
    waiting = asyncio.create_task(gather(2))
    await settle()
    gather.fail_all(unavailable("slow"))
    outcomes = await asyncio.gather(flying, waiting, return_exceptions=True)
    assert [isinstance(outcome, Fault) for outcome in outcomes] == [True, True]
    asked.release.set()
    assert await gather(3) == 6
    assert asked.sizes == [1, 1]
