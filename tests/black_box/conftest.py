"""The system that all black-box tests share, and callers of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from . import instance as instances
from .calls import Api, Caller
from .instance import Script, ScriptedInstance, Serve
from .system import System, running_system

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(home, tmp_path_factory.mktemp("black-box")) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(system: System) -> AsyncIterator[Api]:
    made = Api(system)
    yield made
    await made.close()


@pytest.fixture
def caller(api: Api) -> Caller:
    """A caller of a tenant that no other test uses."""
    return api.caller()


@pytest.fixture
def model(system: System) -> str:
    """A model that no other test uses, at 1 micro-dollar an input token and 2 an output token."""
    return system.fresh_model()


@pytest.fixture
def serve(api: Api) -> Serve:
    """`async with serve(script, *models, **fields_of_the_registration) as instance:`"""

    def start(script: Script, *models: str, **fields: Any) -> Any:
        named = ScriptedInstance(script, fields.pop("name", f"scripted-{next(_numbers)}"))
        return instances.serving(api.registry, api.token, named, *models, **fields)

    return start
