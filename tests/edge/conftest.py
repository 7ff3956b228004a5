"""The edge, serving."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from running_edge import Edge, serving_edge


@pytest_asyncio.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """The whole way, serving."""
    async with serving_edge(tmp_path) as served:
        yield served
