"""Tells one address of incidents as they open, grow by a subject and close, each signed.

Where may be told is settled at the start.

Owner: the service's main, which runs `run` and closes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from dataclasses import asdict
from urllib.parse import urlsplit

import httpx
from penstock.service.clock import Clock
from penstock.telemetry.detection.incidents import Incident

log = logging.getLogger(__name__)

SIGNATURE = "Penstock-Signature"
TRIES = 4
FIRST_WAIT_S = 1.0
PATIENCE_S = 5.0
MAX_QUEUED = 100


def webhook_problem(url: str, secret: str, hosts: tuple[str, ...]) -> str:
    """What is wrong with a webhook as configured; empty when nothing is."""
    distance_parts = urlsplit(url)
    if distance_parts.scheme not in ("http", "https") or not distance_parts.hostname:
        return "must be an http or https address"
    if distance_parts.username or distance_parts.password:
        return "must not hold a user or password"
    if distance_parts.hostname not in hosts:
        return f"{distance_parts.hostname} is not in PENSTOCK_ALERT_WEBHOOK_HOSTS"
    return "" if secret else "needs PENSTOCK_ALERT_WEBHOOK_SECRET to sign with"


def signature(secret: str, unix_s: int, body: bytes) -> str:
    """`t=…,v1=…`: HMAC-SHA256 over the time, a dot and the body.

    A receiver refuses old times, so that none is replayed.
    """
    mac = hmac.new(secret.encode(), f"{unix_s}.".encode() + body, hashlib.sha256)
    return f"t={unix_s},v1={mac.hexdigest()}"


def _event(incident: Incident) -> str:
    """What is told of an incident; empty for what only goes on."""
    if not incident.open:
        return "closed"
    if incident.alerts == 1:
        return "opened"
    return "grew" if incident.grew else ""


def _fields(incident: Incident) -> dict[str, object]:
    """The incident as receivers know it: contributions are called `blames` there."""
    fields = asdict(incident)
    fields["blames"] = fields.pop("contributions")
    return fields


class Webhook:
    """A bounded queue of messages and the connection that sends them; no redirect is followed, so
    the allow-list holds.
    """

    def __init__(self, url: str, secret: str, clock: Clock) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._waiting: asyncio.Queue[Incident] = asyncio.Queue(MAX_QUEUED)
        self._http = httpx.AsyncClient(timeout=PATIENCE_S, follow_redirects=False, trust_env=False)
        self.sent = 0
        self.failed = 0

    def put(self, incident: Incident) -> None:
        """Queue an incident that has just opened, grown or closed; what merely goes on is not told
        again.
        """
        if not _event(incident):
            return
        try:
            self._waiting.put_nowait(incident)
        except asyncio.QueueFull:
            self.failed += 1

    async def run(self) -> None:
        """Send what waits, for ever."""
        while True:
            incident = await self._waiting.get()
            delivered = await self._deliver(incident)
            self.sent += delivered
            self.failed += not delivered

    async def _deliver(self, incident: Incident) -> bool:
        body = json.dumps({"event": _event(incident), "incident": _fields(incident)}).encode()
        for attempt in range(TRIES):
            if attempt:
                await self._clock.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            headers = {
                "Content-Type": "application/json",
                SIGNATURE: signature(self._secret, int(self._clock.time()), body),
            }
            try:
                answer = await self._http.post(self._url, content=body, headers=headers)
            except httpx.HTTPError as error:
                log.warning("the alert webhook gives no answer: %s", type(error).__name__)
                continue
            if answer.is_success:
                return True
            log.warning("the alert webhook answered %d", answer.status_code)
            if answer.status_code < 500 and answer.status_code != 429:
                return False
        return False

    async def close(self) -> None:
        """Give up the connection and what still waits."""
        await self._http.aclose()
