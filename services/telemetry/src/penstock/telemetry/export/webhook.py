"""The webhook: posts incidents to one address as they open, grow by a subject and close.

Each message is signed. The address must be on an allowed host, which is checked when the settings
are read; no redirect is followed, so that nothing is sent anywhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from dataclasses import asdict

import httpx
from penstock.service.clock import Clock
from penstock.telemetry.detection.incidents import Incident

log = logging.getLogger(__name__)

SIGNATURE_HEADER = "Penstock-Signature"
MAX_ATTEMPTS = 4
FIRST_BACKOFF_S = 1.0
TIMEOUT_S = 5.0
MAX_QUEUED = 100


def signature(secret: str, unix_s: int, body: bytes) -> str:
    """`t=…,v1=…`: the time, and HMAC-SHA256 over the time, a dot and the body.

    A receiver that refuses old times cannot be sent an old message again.
    """
    mac = hmac.new(secret.encode(), f"{unix_s}.".encode() + body, hashlib.sha256)
    return f"t={unix_s},v1={mac.hexdigest()}"


def event_name(incident: Incident) -> str:
    """What to tell of an incident: `opened`, `grew` or `closed`; empty when it merely goes on."""
    if not incident.open:
        return "closed"
    if incident.alerts == 1:
        return "opened"
    return "grew" if incident.has_new_subject else ""


def _incident_fields(incident: Incident) -> dict[str, object]:
    """The incident under the field names that receivers know."""
    fields = asdict(incident)
    fields["blames"] = fields.pop("contributions")
    fields["grew"] = fields.pop("has_new_subject")
    return fields


class Webhook:
    """A bounded queue of messages and the connection that sends them.

    Owner: whoever made it runs `run` and closes it.

    Args:
        url: where to post.
        secret: what messages are signed with.
        clock: for the time in signatures and for pauses between attempts.
    """

    def __init__(self, url: str, secret: str, clock: Clock) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._queue: asyncio.Queue[Incident] = asyncio.Queue(MAX_QUEUED)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)
        self.sent = 0
        self.failed = 0
        """Messages that the receiver did not take, or that found the queue full."""

    def enqueue(self, incident: Incident) -> None:
        """Queue an incident that has just opened, grown or closed; any other is left out."""
        if not event_name(incident):
            return
        try:
            self._queue.put_nowait(incident)
        except asyncio.QueueFull:
            self.failed += 1

    async def run(self) -> None:
        """Send what is queued until it is cancelled."""
        while True:
            incident = await self._queue.get()
            if await self._deliver(incident):
                self.sent += 1
            else:
                self.failed += 1

    async def _deliver(self, incident: Incident) -> bool:
        """Post an incident, with growing pauses between attempts; returns whether it was taken."""
        message = {"event": event_name(incident), "incident": _incident_fields(incident)}
        body = json.dumps(message).encode()
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                await self._clock.sleep(FIRST_BACKOFF_S * 2 ** (attempt - 1))
            status = await self._post(body)
            if 200 <= status < 300:
                return True
            log.warning(
                "the alert webhook did not take incident %s (attempt %d of %d): %s",
                incident.id,
                attempt + 1,
                MAX_ATTEMPTS,
                f"status {status}" if status else "no response",
            )
            if status and status < 500 and status != httpx.codes.TOO_MANY_REQUESTS:
                return False
        return False

    async def _post(self, body: bytes) -> int:
        """Post once; returns the HTTP status, 0 when there is no response."""
        headers = {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: signature(self._secret, int(self._clock.time()), body),
        }
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError:
            return 0
        return response.status_code

    async def close(self) -> None:
        """Close the connection; what is still queued is lost."""
        await self._http.aclose()
