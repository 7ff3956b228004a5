"""Publish and subscribe: everybody receives, in order, and a slow subscriber learns its misses."""

from __future__ import annotations

import asyncio

from penstock.service.subscribers import Subscribers


async def test_every_subscriber_receives_every_item_in_order() -> None:
    subscribers = Subscribers[int](10)
    with subscribers.subscribe() as first, subscribers.subscribe() as second:
        for item in (1, 2, 3):
            subscribers.publish(item)
        for subscription in (first, second):
            assert [await anext(subscription) for _ in range(3)] == [1, 2, 3]


async def test_a_slow_subscriber_misses_items_and_learns_how_many() -> None:
    subscribers = Subscribers[int](2)
    with subscribers.subscribe() as slow:
        for item in range(5):
            subscribers.publish(item)
        assert [await anext(slow), await anext(slow)] == [0, 1]
        assert slow.take_missed() == 3
        assert slow.take_missed() == 0, "each miss is reported once"


async def test_only_accepted_items_take_room_in_the_queue() -> None:
    subscribers = Subscribers[int](2)
    with subscribers.subscribe(lambda item: item % 10 == 0) as tens:
        for item in range(20):
            subscribers.publish(item)
        assert [await anext(tens), await anext(tens)] == [0, 10]
        assert tens.take_missed() == 0


async def test_nothing_is_received_before_or_after_the_subscription() -> None:
    subscribers = Subscribers[str](10)
    subscribers.publish("before")
    with subscribers.subscribe() as subscription:
        pass
    subscribers.publish("after")
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
