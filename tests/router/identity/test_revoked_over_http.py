"""Calls of HTTP clients end with their key, which the edge passes on to the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from penstock.edge.build import build
from penstock.edge.settings import EdgeSettings
from penstock.hosting.life import serving
from penstock.testkit.eventually import eventually
from penstock.testkit.outside import outside_for_tests

from ..rig import MODEL
from ..scripted import Behaviour
from .key_rig import KeyRig, key_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[KeyRig]:
    """A router whose instance hangs."""
    async with key_rig(tmp_path) as made:
        made.instance.behaviour = Behaviour.HANGS
        yield made


@pytest.fixture
async def edge(rig: KeyRig) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an edge before that router."""
    settings = EdgeSettings(
        listen="127.0.0.1:0", router_address=rig.routed.address, drain_s=0, grace_s=0
    )
    async with (
        serving(build(settings, outside_for_tests(settings)), settings) as address,
        httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=20) as client,
    ):
        yield client


@pytest.mark.threat("revoked key with a call in flight over HTTP")
async def test_a_revoked_key_ends_its_calls_in_flight(rig: KeyRig, edge: httpx.AsyncClient) -> None:
    key, metadata = await rig.made()
    body = {"model": MODEL, "input": "hello"}
    waiting = asyncio.ensure_future(edge.post("/v1/embeddings", json=body, headers=dict(metadata)))
    await eventually(lambda: len(rig.instance.calls) == 1)
    await rig.revoke(key)
    answer = await waiting
    assert answer.status_code == 401
    assert "revoked or has expired" in answer.json()["error"]["message"]
    await asyncio.wait_for(rig.instance.cancelled.wait(), 10)
