"""A scripted router behind a public endpoint, for every test of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from penstock.testkit.clock import NoWaitClock
from penstock.testkit.router import ScriptedRouter, serving_router


@pytest.fixture
def clock() -> NoWaitClock:
    return NoWaitClock()


@pytest.fixture
async def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def address(router: ScriptedRouter) -> AsyncIterator[str]:
    async with serving_router(router) as address:
        yield address
