"""The webhook: incidents are posted to an allowed address, signed, once for each event.

Real sockets on both ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.service.clock import SystemClock
from penstock.service.settings import BadConfig, load_settings
from penstock.telemetry.detection.incidents import Contribution, Incident
from penstock.telemetry.export.webhook import Webhook
from penstock.telemetry.settings import TelemetrySettings
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

from .conftest import running
from .otlp import export, export_request, otlp_span

ERROR = trace_pb2.Status.STATUS_CODE_ERROR
SECRET = "s3cret"


class WebhookReceiver:
    """An HTTP server that answers with the next of `statuses`, or 200, and keeps what it got."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])
            if name
        }
        body = await reader.readexactly(int(headers["content-length"]))
        status = self.statuses.pop(0) if self.statuses else 200
        response = (
            f"HTTP/1.1 {status} x\r\n"
            f"Location: {self.url}\r\n"
            "Content-Length: 0\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(response.encode())
        await writer.drain()
        writer.close()
        self.received.put_nowait((headers, body))

    async def next_message(self) -> dict[str, Any]:
        """The body of the next message."""
        _, body = await self.received.get()
        message: dict[str, Any] = json.loads(body)
        return message


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/alerts"
    yield receiver
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def running_webhook(receiver: WebhookReceiver, clock: Any) -> AsyncIterator[Webhook]:
    webhook = Webhook(receiver.url, SECRET, clock)
    task = asyncio.create_task(webhook.run())
    try:
        yield webhook
    finally:
        task.cancel()
        await asyncio.wait([task])
        await webhook.close()


def incident(**fields: Any) -> Incident:
    values: dict[str, Any] = {
        "id": "inc-1",
        "service": "router",
        "subject": "x",
        "detector": "metric",
        "opened_unix_s": 1.0,
        "last_unix_s": 1.0,
        "severity": 5.0,
        "text": "t",
        **fields,
    }
    return Incident(**values)


async def test_an_incident_is_posted_when_it_opens_and_when_it_closes(
    receiver: WebhookReceiver,
) -> None:
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident())
        webhook.enqueue(incident(alerts=2))
        webhook.enqueue(incident(alerts=2, open=False))
        opened, closed = await receiver.next_message(), await receiver.next_message()
    assert (opened["event"], opened["incident"]["id"]) == ("opened", "inc-1")
    assert closed["event"] == "closed"
    assert receiver.received.empty()


async def test_an_incident_is_posted_again_when_it_grows_by_a_subject(
    receiver: WebhookReceiver,
) -> None:
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident(alerts=2, has_new_subject=True))
        assert (await receiver.next_message())["event"] == "grew"


@pytest.mark.threat("forged webhook")
async def test_a_message_is_signed_over_time_and_body(receiver: WebhookReceiver) -> None:
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident())
        headers, body = await receiver.received.get()
    time_text, _, mac = headers["penstock-signature"].partition(",v1=")
    signed = time_text.removeprefix("t=").encode() + b"." + body
    assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


async def test_a_message_keeps_the_fields_that_receivers_know(receiver: WebhookReceiver) -> None:
    part = Contribution("latency_ms", 0.9, 40.0, 10.0, "router m")
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident(contributions=(part,), critical_section="router Embed"))
        message = await receiver.next_message()
    assert message["incident"] == {
        "id": "inc-1",
        "service": "router",
        "subject": "x",
        "detector": "metric",
        "opened_unix_s": 1.0,
        "last_unix_s": 1.0,
        "severity": 5.0,
        "text": "t",
        "open": True,
        "blames": [
            {
                "feature": "latency_ms",
                "share": 0.9,
                "value": 40.0,
                "expected": 10.0,
                "subject": "router m",
            }
        ],
        "critical_section": "router Embed",
        "trace_ids": [],
        "alerts": 1,
        "grew": False,
    }


async def test_the_service_posts_an_incident_that_its_detectors_find(
    receiver: WebhookReceiver, tmp_path: Path
) -> None:
    clock = FakeClock(1.0)
    settings = {
        "alert_webhook_url": receiver.url,
        "alert_webhook_secret": SECRET,
        "alert_webhook_hosts": ("127.0.0.1",),
    }
    async with running(tmp_path, clock, **settings) as service:
        for number in range(1, 161):
            failed = number > 100
            span = otlp_span(
                number,
                trace_id=number.to_bytes(16, "big"),
                rpc__status_code="INTERNAL" if failed else "OK",
            )
            span.name = "Shop/Order"
            if failed:
                span.status.code = ERROR
            await export(service.address, export_request(span).SerializeToString())
        await clock.advance(5.0)
        message = await receiver.next_message()
    assert message["event"] == "opened"
    assert [part["feature"] for part in message["incident"]["blames"]] == ["error_rate"]


async def test_a_server_error_is_tried_again(receiver: WebhookReceiver) -> None:
    receiver.statuses = [503, 200]
    clock = FakeClock()
    async with running_webhook(receiver, clock) as webhook:
        webhook.enqueue(incident())

        async def is_sent() -> bool:
            await clock.advance(1.0)
            return webhook.sent == 1

        await eventually(is_sent)
    assert receiver.received.qsize() == 2
    assert webhook.failed == 0


async def test_a_refusal_is_not_tried_again(receiver: WebhookReceiver) -> None:
    receiver.statuses = [403]
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident())
        await eventually(lambda: webhook.failed)
    assert receiver.received.qsize() == 1
    assert webhook.sent == 0


@pytest.mark.threat("SSRF by the webhook: a redirect")
async def test_a_redirect_is_not_followed(receiver: WebhookReceiver) -> None:
    receiver.statuses = [302]
    async with running_webhook(receiver, SystemClock()) as webhook:
        webhook.enqueue(incident())
        await eventually(lambda: webhook.failed)
    assert receiver.received.qsize() == 1


@pytest.mark.threat("SSRF by the webhook: another host")
@pytest.mark.parametrize(
    ("url", "hosts", "secret", "problem"),
    [
        (
            "https://alerts.example/x",
            "other.example",
            SECRET,
            "not in PENSTOCK_ALERT_WEBHOOK_HOSTS",
        ),
        ("https://alerts.example/x", "alerts.example", "", "PENSTOCK_ALERT_WEBHOOK_SECRET"),
        ("ftp://alerts.example/x", "alerts.example", SECRET, "http or https"),
        ("https://user:p@alerts.example/x", "alerts.example", SECRET, "user or password"),
        ("https://alerts.example.evil.example/x", "alerts.example", SECRET, "not in"),
    ],
)
def test_an_address_that_is_not_allowed_is_refused_at_the_start(
    url: str, hosts: str, secret: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=problem):
        load_settings(
            TelemetrySettings,
            home=tmp_path,
            alert_webhook_url=url,
            alert_webhook_hosts=hosts,
            alert_webhook_secret=secret,
        )


def test_an_address_on_an_allowed_host_is_accepted(tmp_path: Path) -> None:
    settings = load_settings(
        TelemetrySettings,
        home=tmp_path,
        alert_webhook_url="https://a.example/x",
        alert_webhook_hosts="b.example, a.example",
        alert_webhook_secret=SECRET,
    )
    assert settings.alert_webhook_hosts == ("b.example", "a.example")
