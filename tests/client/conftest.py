"""A scripted router behind a real door, for every test of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from penstock.service.clock import SystemClock
from penstock.testkit.router import ScriptedRouter, serving_router


class Hurried(SystemClock):
    """The machine's clock, but nobody sleeps: it is written down for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Hurried:
    return Hurried()


@pytest.fixture
async def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def address(router: ScriptedRouter) -> AsyncIterator[str]:
    async with serving_router(router) as address:
        yield address
