"""What the tests of the router share: a way to start one, and one with two scripted instances."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from penstock.router.settings import RouterSettings

from .rig import MODEL, Rig
from .routed import StartRouter, start
from .scripted import ScriptedInstance


@pytest.fixture
def start_router() -> StartRouter:
    """Starts a router; see `routed.start`."""
    return start


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A router with default settings and two scripted instances."""
    instances = {"a": ScriptedInstance(), "b": ScriptedInstance()}
    async with start(RouterSettings(default_model=MODEL)) as routed:
        for name, instance in instances.items():
            await routed.join(name, instance, MODEL)
        yield Rig(routed, instances)
