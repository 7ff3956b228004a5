"""What a view shows in place of a service that does not answer."""

from __future__ import annotations

from penstock.console.drawing.blocks import Block, Note
from penstock.console.service_clients import ServiceClients


def unavailable(clients: ServiceClients, service: str) -> list[Block]:
    """A note that names the service and says why its last call failed."""
    reason = clients.failure(service) or "it was not called yet"
    return [Note(f"{service} does not answer: {reason}", bad=True)]
