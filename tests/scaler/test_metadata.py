"""The machine's own metadata service as each cloud speaks it, from a real HTTP server that asks for
each cloud's headers.
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
    Metadata,
    watch,
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
    """All three services at one address; a path that nothing was said of is missing, as is one
    asked without its headers.
    """

    says: dict[str, str]
    asked: list[str]

    def do_PUT(self) -> None:
        known = (
            self.path == "/latest/api/token"
            and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        )
        self._say("token-1" if known else None)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        words = {
            EC2: self.headers["X-aws-ec2-metadata-token"] == "token-1",
            GCP: self.headers["Metadata-Flavor"] == "Google",
            AZURE: self.headers["Metadata"] == "true"
            and "api-version" in urllib.parse.parse_qs(query),
            NAME: self.headers["Metadata"] == "true"
            and urllib.parse.parse_qs(query).get("format") == ["text"],
        }
        self._say(self.says.get(path) if words.get(path) else None)

    def _say(self, text: str | None) -> None:
        body = (text or "").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def service() -> Iterator[tuple[str, Any]]:
    handler = type("Here", (Service,), {"says": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_ec2_speaks_once_something_is_planned(service: tuple[str, Any]) -> None:
    url, here = service
    with pytest.raises(OSError, match="404"):
        Ec2Metadata(url).notices(NOW)
    here.says[EC2] = ACTION
    assert Ec2Metadata(url).notices(NOW) == [
        Notice("this machine", NOW + 120, "ec2-instance-action")
    ]


def test_gcp_says_true_or_false(service: tuple[str, Any]) -> None:
    url, here = service
    here.says[GCP] = "FALSE\n"
    assert GcpMetadata(url).notices(NOW) == []
    here.says[GCP] = "TRUE"
    assert GcpMetadata(url).notices(NOW) == [Notice("this machine", NOW + 30, "gcp-preempted")]


def test_azure_speaks_of_neighbours_too(service: tuple[str, Any]) -> None:
    url, here = service
    here.says |= {NAME: "vm-7", AZURE: azure("vm-3")}
    own = AzureMetadata(url)
    assert own.notices(NOW) == []
    here.says[AZURE] = azure("vm-3", "vm-7", kind="Freeze")
    assert own.notices(NOW) == []
    here.says[AZURE] = azure("vm-3", "vm-7")
    assert own.notices(NOW) == [Notice("vm-7", NOW + 45, "azure-scheduled-event")]
    assert here.asked.count(NAME) == 1


@pytest.mark.parametrize(
    ("path", "made", "said"),
    [
        (EC2, Ec2Metadata, "<html>"),
        (EC2, Ec2Metadata, '{"action": "terminate"}'),
        (GCP, GcpMetadata, "perhaps"),
        (AZURE, AzureMetadata, "[]"),
        (AZURE, AzureMetadata, "{}"),
    ],
)
def test_what_nobody_understands_is_said(
    service: tuple[str, Any], path: str, made: type[Metadata], said: str
) -> None:
    url, here = service
    here.says |= {NAME: "vm-7", path: said}
    with pytest.raises(BadNotice):
        made(url).notices(NOW)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("says", "source"),
    [
        ({EC2: ACTION, GCP: "???"}, "ec2-instance-action"),
        ({GCP: "TRUE", EC2: "<html>"}, "gcp-preempted"),
        ({NAME: "vm-7", AZURE: azure("vm-7")}, "azure-scheduled-event"),
    ],
)
async def test_a_notice_is_told_once_whoever_speaks(
    service: tuple[str, Any], says: dict[str, str], source: str
) -> None:
    url, here = service
    told: list[Notice] = []

    async def tell(notice: Notice) -> None:
        told.append(notice)

    here.says |= says
    nobody = GcpMetadata("http://127.0.0.1:1")
    await watch(
        [nobody, Ec2Metadata(url), GcpMetadata(url), AzureMetadata(url)], tell, FakeClock(NOW)
    )
    assert [notice.source for notice in told] == [source]


async def test_it_asks_again_until_something_is_planned() -> None:
    class Later:
        asked = 0

        def notices(self, now_s: float) -> list[Notice]:
            self.asked += 1
            return [Notice("own", now_s, "test")] if self.asked == 3 else []

    class Soon(FakeClock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)

    slept: list[float] = []
    told: list[Notice] = []

    async def tell(notice: Notice) -> None:
        told.append(notice)

    await watch([Later()], tell, Soon(NOW))
    assert slept == [5.0, 5.0] and len(told) == 1
