"""An HTTP port: an address that is taken is named with its variable, and cells may share one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from penstock.hosting.http_port import HttpPort
from penstock.service.program import CannotStart


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers every request with an empty 200."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


async def test_an_address_that_is_taken_is_named_with_its_variable() -> None:
    first = HttpPort("127.0.0.1:0", app)
    await first.start()
    second = HttpPort(first.address, app, "PENSTOCK_OTHER_LISTEN")
    with pytest.raises(CannotStart, match="set PENSTOCK_OTHER_LISTEN"):
        await second.start()
    await first.stop()


async def test_cells_share_an_address() -> None:
    first = HttpPort("127.0.0.1:0", app, shared=True)
    await first.start()
    second = HttpPort(first.address, app, shared=True)
    await second.start()
    await first.stop()
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://{second.address}/")).status_code == 200
    await second.stop()


async def test_each_response_says_when_it_was_sent() -> None:
    port = HttpPort("127.0.0.1:0", app)
    await port.start()
    before = datetime.now(UTC).replace(microsecond=0)
    async with httpx.AsyncClient(trust_env=False) as client:
        responses = [await client.get(f"http://{port.address}/") for _ in range(2)]
    await port.stop()
    for response in responses:
        sent = parsedate_to_datetime(response.headers["date"])
        assert before <= sent <= before + timedelta(seconds=60)
