"""The edge on a port, before a scripted router and a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.service.store import embedded_store

from ..echoing_edge import EchoingEdge, serving_edge


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EchoingEdge]:
    async with embedded_store(tmp_path / "redis") as url, serving_edge(cache_url=url) as made:
        yield made
