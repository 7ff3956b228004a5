"""The metadata services of the clouds, served over real HTTP by a fake that requires each cloud's
headers.
"""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from penstock.scaler.spot.instance_metadata import (
    AzureMetadata,
    Ec2Metadata,
    GcpMetadata,
    MetadataService,
    wait_for_notice,
)
from penstock.scaler.spot.notices import BadNotice, Notice
from penstock.testkit.clock import FakeClock

NOW = 1_800_000_000.0
EC2 = "/latest/meta-data/spot/instance-action"
GCP = "/computeMetadata/v1/instance/preempted"
AZURE = "/metadata/scheduledevents"
NAME = "/metadata/instance/compute/name"
ACTION = json.dumps({"action": "terminate", "time": "2027-01-15T08:02:00Z"})


def azure(*names: str, kind: str = "Preempt") -> str:
    event = {
        "EventId": "1",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(names),
        "EventStatus": "Scheduled",
        "NotBefore": "Fri, 15 Jan 2027 08:00:45 GMT",
        "Description": "",
        "EventSource": "Platform",
    }
    return json.dumps({"DocumentIncarnation": 2, "Events": [event]})


class Service(http.server.BaseHTTPRequestHandler):
    """All three services at one address.

    A path without a text in `texts` is not found, nor is one requested without its headers.
    """

    texts: dict[str, str]
    requested: list[str]

    def do_PUT(self) -> None:
        known = (
            self.path == "/latest/api/token"
            and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        )
        self._answer("token-1" if known else None)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.requested.append(path)
        has_headers = {
            EC2: self.headers["X-aws-ec2-metadata-token"] == "token-1",
            GCP: self.headers["Metadata-Flavor"] == "Google",
            AZURE: self.headers["Metadata"] == "true"
            and "api-version" in urllib.parse.parse_qs(query),
            NAME: self.headers["Metadata"] == "true"
            and urllib.parse.parse_qs(query).get("format") == ["text"],
        }
        self._answer(self.texts.get(path) if has_headers.get(path) else None)

    def _answer(self, text: str | None) -> None:
        body = (text or "").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def service() -> Iterator[tuple[str, Any]]:
    handler = type("Metadata", (Service,), {"texts": {}, "requested": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_ec2_has_no_action_until_a_termination_is_planned(service: tuple[str, Any]) -> None:
    url, fake = service
    with pytest.raises(OSError, match="404"):
        Ec2Metadata(url).notices(NOW)
    fake.texts[EC2] = ACTION
    assert Ec2Metadata(url).notices(NOW) == [
        Notice("this machine", NOW + 120, "ec2-instance-action")
    ]


def test_gcp_answers_true_or_false(service: tuple[str, Any]) -> None:
    url, fake = service
    fake.texts[GCP] = "FALSE\n"
    assert GcpMetadata(url).notices(NOW) == []
    fake.texts[GCP] = "TRUE"
    assert GcpMetadata(url).notices(NOW) == [Notice("this machine", NOW + 30, "gcp-preempted")]


def test_azure_events_of_other_machines_are_ignored(service: tuple[str, Any]) -> None:
    url, fake = service
    fake.texts |= {NAME: "vm-7", AZURE: azure("vm-3")}
    own = AzureMetadata(url)
    assert own.notices(NOW) == []
    fake.texts[AZURE] = azure("vm-3", "vm-7", kind="Freeze")
    assert own.notices(NOW) == []
    fake.texts[AZURE] = azure("vm-3", "vm-7")
    assert own.notices(NOW) == [Notice("vm-7", NOW + 45, "azure-scheduled-event")]
    assert fake.requested.count(NAME) == 1


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        (EC2, Ec2Metadata, "<html>"),
        (EC2, Ec2Metadata, '{"action": "terminate"}'),
        (GCP, GcpMetadata, "perhaps"),
        (AZURE, AzureMetadata, "[]"),
        (AZURE, AzureMetadata, "{}"),
    ],
)
def test_an_answer_of_another_format_is_refused(
    service: tuple[str, Any], path: str, kind: type[MetadataService], text: str
) -> None:
    url, fake = service
    fake.texts |= {NAME: "vm-7", path: text}
    with pytest.raises(BadNotice):
        kind(url).notices(NOW)  # type: ignore[call-arg]  # a protocol has no constructor


@pytest.mark.parametrize(
    ("texts", "source"),
    [
        ({EC2: ACTION, GCP: "???"}, "ec2-instance-action"),
        ({GCP: "TRUE", EC2: "<html>"}, "gcp-preempted"),
        ({NAME: "vm-7", AZURE: azure("vm-7")}, "azure-scheduled-event"),
    ],
)
async def test_the_first_notice_of_any_service_is_taken_once(
    service: tuple[str, Any], texts: dict[str, str], source: str
) -> None:
    url, fake = service
    taken: list[Notice] = []

    async def take(notice: Notice) -> None:
        taken.append(notice)

    fake.texts |= texts
    unreachable = GcpMetadata("http://127.0.0.1:1")
    services = [unreachable, Ec2Metadata(url), GcpMetadata(url), AzureMetadata(url)]
    await wait_for_notice(services, take, FakeClock(NOW))
    assert [notice.source for notice in taken] == [source]


class ThirdPoll:
    """A metadata service that has a notice at its third poll."""

    polls = 0

    def notices(self, now_s: float) -> list[Notice]:
        self.polls += 1
        return [Notice("own", now_s, "test")] if self.polls == 3 else []


class RecordingClock(FakeClock):
    """Sleeps take no time, and are recorded."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


async def test_services_are_polled_every_five_seconds_until_there_is_a_notice() -> None:
    clock = RecordingClock()
    taken: list[Notice] = []

    async def take(notice: Notice) -> None:
        taken.append(notice)

    await wait_for_notice([ThirdPoll()], take, clock)
    assert clock.slept_s == [5.0, 5.0]
    assert len(taken) == 1
