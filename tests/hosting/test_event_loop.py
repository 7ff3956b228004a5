"""Stalls of the event loop are found by a task that wakes late, and told by health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.hosting.event_loop import EVERY_S, LoopDelays, watch, watched
from penstock.hosting.grpc_server import EVENT_LOOP
from penstock.hosting.service import Service
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.peers.stream import open_channel
from penstock.service.clock import SystemClock
from penstock.testkit.eventually import eventually
from penstock.testkit.server import serving

HEALTH = health_pb2.HealthCheckResponse


class LateClock:
    """Virtual time; each sleep is as late as the next of `delays_s` says, and the last never ends.

    Attributes:
        has_ended: set once all delays have been.
    """

    def __init__(self, delays_s: Iterable[float]) -> None:
        self._delays_s: Iterator[float] = iter(delays_s)
        self._now = 0.0
        self.has_ended = asyncio.Event()

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        delay_s = next(self._delays_s, None)
        if delay_s is None:
            self.has_ended.set()
            await asyncio.Event().wait()
        self._now += seconds + (delay_s or 0.0)


async def reports(delays_s: Iterable[float]) -> tuple[list[bool], LoopDelays]:
    """What is reported while a loop that works is late like this."""
    clock, delays, told = LateClock(delays_s), LoopDelays(), []

    async def report(is_stalling: bool) -> None:
        told.append(is_stalling)

    watching = asyncio.create_task(watch(clock, delays, report, cpu_s=clock.monotonic))
    await clock.has_ended.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return told, delays


async def test_a_loop_that_is_in_time_reports_nothing() -> None:
    told, delays = await reports([0.01] * 300)
    assert told == []
    assert 0.009 < delays.longest_s < 0.011


async def test_one_short_stall_is_measured_and_does_not_count_as_stalling() -> None:
    told, delays = await reports([0.0, 1.0, 0.0])
    assert told == []
    assert 0.9 < delays.longest_s < 1.1


async def test_many_small_delays_are_load_and_no_stalls() -> None:
    told, _ = await reports([0.2] * 100)
    assert told == []


async def test_stalls_that_take_a_fifth_of_ten_seconds_are_reported_until_they_have_passed() -> (
    None
):
    calm = [0.0] * round(12.0 / EVERY_S)
    told, delays = await reports([0.5] * 5 + calm)
    assert told == [True, False]
    assert delays.longest_s < 0.01


async def test_health_tells_of_the_loop_beside_the_services() -> None:
    async def status(name: str) -> int:
        async with open_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return int(answer.status)

    async with serving([]) as server:
        assert await status(EVENT_LOOP) == HEALTH.SERVING
        clock = LateClock([0.5] * 5)
        async with watched([Service("test", [server])], clock, NO_TELEMETRY):
            await clock.has_ended.wait()
            assert await status(EVENT_LOOP) == HEALTH.NOT_SERVING
            assert await status("") == HEALTH.SERVING, "a slow process is not taken out"


async def test_what_holds_the_loop_is_found() -> None:
    delays, changes = LoopDelays(), asyncio.Queue[bool]()
    watching = asyncio.create_task(watch(SystemClock(), delays, changes.put))
    await asyncio.sleep(0)  # runs the watch to its first sleep
    time.sleep(EVERY_S + 0.3)  # noqa: ASYNC251 - the stall itself
    await eventually(lambda: delays.longest_s >= 0.3)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
