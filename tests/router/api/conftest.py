"""The public service with two scripted instances behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from penstock.router.settings import RouterSettings

from ..conftest import StartRouter
from ..rig import MODEL, Rig
from ..scripted import ScriptedInstance


@pytest.fixture
async def rig(start_router: StartRouter) -> AsyncIterator[Rig]:
    """A router with default settings."""
    instances = {"a": ScriptedInstance(), "b": ScriptedInstance()}
    async with start_router(RouterSettings(default_model=MODEL)) as routed:
        for name, instance in instances.items():
            await routed.join(name, instance, MODEL)
        yield Rig(routed, instances)
