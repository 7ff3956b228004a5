"""Single flight: followers share a leader's result, and never its failure."""

from __future__ import annotations

import asyncio

import pytest
from penstock.cache.lookups.pending import SingleFlight
from penstock.testkit.eventually import eventually

LONG_S = 30.0


async def following(
    flight: SingleFlight[str], count: int, key: str = "key"
) -> list[asyncio.Task[str | None]]:
    """Tasks that wait for the leader of a key, each of them waiting already."""
    waiting = flight.waiting_count + count
    tasks = [asyncio.create_task(flight.wait(key, LONG_S)) for _ in range(count)]
    await eventually(lambda: flight.waiting_count == waiting)
    return tasks


async def test_the_first_caller_of_a_key_leads_and_others_may_wait() -> None:
    flight: SingleFlight[str] = SingleFlight()
    assert flight.begin("a")
    assert not flight.begin("a")
    assert flight.begin("b")
    assert len(flight) == 2


async def test_all_followers_get_the_leaders_result_and_the_key_is_free_again() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    followers = await following(flight, 3)
    flight.finish("key", "result")
    assert await asyncio.gather(*followers) == ["result"] * 3
    assert flight.begin("key")


async def test_after_a_failure_the_longest_waiting_follower_leads_and_the_others_wait_on() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    first, second, third = await following(flight, 3)
    flight.finish("key", None)
    assert await first is None
    assert not second.done()
    assert not flight.begin("key")
    flight.finish("key", "result")
    assert await asyncio.gather(second, third) == ["result"] * 2


async def test_a_failure_without_followers_frees_the_key() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    flight.finish("key", None)
    assert len(flight) == 0


async def test_a_follower_that_is_cancelled_is_skipped() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    first, second = await following(flight, 2)
    first.cancel()
    await asyncio.wait([first])
    flight.finish("key", None)
    assert await second is None


async def test_a_follower_cancelled_as_it_becomes_the_leader_hands_the_key_on() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    first, second = await following(flight, 2)
    flight.finish("key", None)
    first.cancel()  # before its task has seen that it leads
    assert await second is None
    await asyncio.wait([first])
    assert first.cancelled()


async def test_a_follower_that_waits_too_long_goes_on_by_itself() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight.begin("key")
    with pytest.raises(TimeoutError):
        await flight.wait("key", 0.001)
    flight.finish("key", "result")
    assert len(flight) == 0
