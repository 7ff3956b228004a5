"""Views in front of services that do not answer: each names the service, and none fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.console.drawing.blocks import Note
from penstock.console.service_clients import ServiceClients
from penstock.console.settings import ConsoleSettings
from penstock.console.views.views import VIEWS, View
from penstock.testkit.outside import outside_for_tests

NOWHERE = "127.0.0.1:1"


@pytest.fixture
async def clients(tmp_path: Path) -> AsyncIterator[ServiceClients]:
    """Clients of addresses where nothing listens."""
    settings = ConsoleSettings(
        home=tmp_path,
        telemetry_address=NOWHERE,
        router_address=NOWHERE,
        batcher_address=NOWHERE,
        limiter_address=NOWHERE,
        cache_address=NOWHERE,
        scaler_address=NOWHERE,
    )
    clients = ServiceClients(settings, outside_for_tests(settings))
    yield clients
    await clients.close()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
async def test_a_view_names_the_service_that_does_not_answer(
    clients: ServiceClients, view: View
) -> None:
    service = {"/scoreboard": "router", "/queues": "batcher"}.get(view.path, "telemetry")
    (note,) = await view.show(clients, {})
    assert isinstance(note, Note)
    assert note.bad
    assert note.text.startswith(f"{service} does not answer: ")
