"""Incidents reach those who asked: a signed webhook on an allowed host, and the gRPC stream.

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
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call
from penstock.service.clock import SystemClock
from penstock.service.settings import BadConfig, load_settings
from penstock.telemetry.api.telemetry_service import TelemetryServicer
from penstock.telemetry.detection.findings import Contribution, Finding
from penstock.telemetry.detection.incidents import Incident, IncidentTracker
from penstock.telemetry.export.webhook import Webhook
from penstock.telemetry.settings import TelemetrySettings
from penstock.telemetry.store import TelemetryStore
from penstock.testkit.clock import FakeClock

from .conftest import running
from .test_otlp_receiver import export, made, request

ERROR = trace_pb2.Status.STATUS_CODE_ERROR
SECRET = "s3cret"


class Receiver:
    """An HTTP server of a few lines that answers with the next status and keeps what it was
    sent.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
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
        writer.write(
            f"HTTP/1.1 {status} x\r\nLocation: {self.url}\r\nContent-Length: 0\r\nConnection: "
            "close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()
        self.got.put_nowait((headers, body))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/alerts"
    yield made
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def sending(receiver: Receiver, clock: Any) -> AsyncIterator[Webhook]:
    webhook = Webhook(receiver.url, SECRET, clock)
    task = asyncio.create_task(webhook.run())
    try:
        yield webhook
    finally:
        task.cancel()
        await asyncio.wait([task])
        await webhook.close()


def incident(**changes: Any) -> Incident:
    told: dict[str, Any] = {
        "id": "inc-1",
        "service": "router",
        "subject": "x",
        "detector": "metric",
    }
    return Incident(
        **{
            **told,
            "opened_unix_s": 1.0,
            "last_unix_s": 1.0,
            "severity": 5.0,
            "text": "t",
            **changes,
        }
    )


async def test_an_incident_is_posted_once_and_signed(receiver: Receiver) -> None:
    async with sending(receiver, SystemClock()) as webhook:
        webhook.put(incident())
        webhook.put(incident(alerts=2))
        webhook.put(incident(alerts=2, open=False))
        (headers, body), (_, closed) = await receiver.got.get(), await receiver.got.get()
    at, _, mac = headers["penstock-signature"].partition(",v1=")
    expected = hmac.new(
        SECRET.encode(), at.removeprefix("t=").encode() + b"." + body, hashlib.sha256
    ).hexdigest()
    assert mac == expected
    assert json.loads(body)["event"] == "opened" and json.loads(body)["incident"]["id"] == "inc-1"
    assert json.loads(closed)["event"] == "closed"
    assert receiver.got.empty()


async def test_an_incident_that_grows_by_a_subject_is_told_again(receiver: Receiver) -> None:
    async with sending(receiver, SystemClock()) as webhook:
        webhook.put(incident(alerts=2, grew=True))
        _, body = await receiver.got.get()
    assert json.loads(body)["event"] == "grew"


async def test_the_service_itself_tells_its_webhook(receiver: Receiver, tmp_path: Path) -> None:
    host = "127.0.0.1"
    told = {
        "alert_webhook_url": receiver.url,
        "alert_webhook_secret": SECRET,
        "alert_webhook_hosts": (host,),
    }
    clock = FakeClock(1.0)
    async with running(tmp_path, clock, **told) as service:
        for number in range(1, 161):
            trace = made(
                number,
                trace=number.to_bytes(16, "big"),
                rpc__status_code="INTERNAL" if number > 100 else "OK",
            )
            trace.name, trace.status.code = (
                "Shop/Order",
                ERROR if number > 100 else trace.status.code,
            )
            await export(service.address, request(trace).SerializeToString())
        await clock.advance(5.0)
        _, body = await receiver.got.get()
    assert json.loads(body)["event"] == "opened"
    assert "error_rate" in json.dumps(json.loads(body)["incident"]["blames"])


async def test_a_failing_receiver_is_tried_again_and_a_refusing_one_is_not(
    receiver: Receiver,
) -> None:
    receiver.statuses = [503, 200, 403]
    clock = FakeClock()
    async with sending(receiver, clock) as webhook:
        webhook.put(incident())
        await receiver.got.get()
        while receiver.got.empty():
            await clock.advance(1.0)
            await asyncio.sleep(0.001)
        await receiver.got.get()
        webhook.put(incident(id="inc-2"))
        await receiver.got.get()
        while not webhook.failed:
            await asyncio.sleep(0.001)
    assert (webhook.sent, webhook.failed) == (1, 1)


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.statuses = [302]
    async with sending(receiver, SystemClock()) as webhook:
        webhook.put(incident())
        await receiver.got.get()
        while not webhook.failed:
            await asyncio.sleep(0.001)
    assert receiver.got.empty()


@pytest.mark.parametrize(
    ("url", "hosts", "secret", "wrong"),
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
def test_where_it_may_go_is_settled_at_the_start(
    url: str, hosts: str, secret: str, wrong: str, tmp_path: Path
) -> None:
    told = {"alert_webhook_url": url, "alert_webhook_hosts": hosts, "alert_webhook_secret": secret}
    with pytest.raises(BadConfig, match=wrong):
        load_settings(TelemetrySettings, home=tmp_path, **told)


def test_an_allowed_host_is_taken(tmp_path: Path) -> None:
    told = {
        "alert_webhook_url": "https://a.example/x",
        "alert_webhook_hosts": "b.example, a.example",
    }
    settings = load_settings(TelemetrySettings, home=tmp_path, alert_webhook_secret=SECRET, **told)
    assert settings.alert_webhook_hosts == ("b.example", "a.example")


async def test_a_watcher_sees_an_incident_open_grow_and_close() -> None:
    store = TelemetryStore(FakeClock(), 1 << 20)
    servicer = TelemetryServicer(store)
    stream = servicer.WatchIncidents(pb.WatchIncidentsRequest(service="router"), Call())
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    store.incidents.take(Finding("cache", "y", "metric", 9.0, 4.0, "other"))
    contributions = (Contribution("latency_ms", 0.9, 40.0, 10.0),)
    store.incidents.take(
        Finding(
            "router", "x", "requests", 10.0, 6.0, "slow", contributions, "router Embed", ("ab",)
        )
    )
    opened = (await first).incident
    assert opened.summary == "slow" and opened.contributions[0].feature == "latency_ms"
    assert opened.critical_section == "router Embed" and opened.state == pb.INCIDENT_STATE_OPEN
    store.incidents.take(Finding("router", "z", "metric", 20.0, 4.0, "more"))
    assert (await anext(stream)).incident.alerts == 2
    assert IncidentTracker().close_quiet(0.0) == []
    assert len(store.incidents.close_quiet(1000.0)) == 2
    assert (await anext(stream)).incident.state == pb.INCIDENT_STATE_CLOSED
    await stream.aclose()  # type: ignore[attr-defined]
