"""Notices in the format of every cloud, and the HTTP port that takes them; a bad notice is refused
and the wrong field named.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from penstock.scaler.api.notice_http import NoticePort
from penstock.scaler.pools.autoscaler import NoticeOutcome
from penstock.scaler.spot.notices import BadNotice, Notice, parse_notices
from penstock.testkit.clock import FakeClock

NOW = 1_800_000_000.0
WARNING = {
    "detail-type": "EC2 Spot Instance Interruption Warning",
    "time": "2027-01-15T08:00:00Z",
    "detail": {"instance-id": "i-1", "instance-action": "terminate"},
}
AZURE = {
    "Events": [
        {"EventType": "Preempt", "Resources": ["vm-1"]},
        {"EventType": "Freeze", "Resources": ["vm-2"]},
    ]
}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"instance": "m-1"}, [Notice("m-1", NOW + 120, "webhook")]),
        ({"instance": "m-1", "at": NOW + 9, "source": "x"}, [Notice("m-1", NOW + 9, "x")]),
        (WARNING, [Notice("i-1", NOW + 120, "ec2-spot-notice")]),
        (
            {**WARNING, "detail-type": "EC2 Instance Rebalance Recommendation"},
            [Notice("i-1", NOW + 120, "ec2-rebalance")],
        ),
        (
            {"action": "terminate", "time": "2027-01-15T08:02:00Z"},
            [Notice("own", NOW + 120, "ec2-instance-action")],
        ),
        (AZURE, [Notice("vm-1", NOW + 30, "azure-scheduled-event")]),
        (
            {"Events": [{"EventType": "Terminate", "NotBefore": "Fri, 15 Jan 2027 08:05:00 GMT"}]},
            [Notice("own", NOW + 300, "azure-scheduled-event")],
        ),
        ({"Events": []}, []),
    ],
)
def test_each_format_is_parsed(body: dict[str, Any], found: list[Notice]) -> None:
    assert parse_notices(body, "own", NOW) == found


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "JSON object"),
        ({}, "instance"),
        ({"instance": ""}, "instance"),
        ({"instance": "x" * 300}, "instance"),
        ({"instance": "m", "at": "soon"}, "at"),
        ({"instance": "m", "at": NOW * 1e3}, "at: .*milliseconds"),
        ({"instance": "m", "at": float("nan")}, "at"),
        ({"instance": "m", "at": -1}, "at"),
        ({"detail-type": "EC2 Spot Instance Interruption Warning"}, "detail.instance-id"),
        (
            {
                "detail-type": "EC2 Instance State-change Notification",
                "detail": {"instance-id": "i"},
            },
            "no notice",
        ),
        ({"Events": {}}, "Events"),
        ({"Events": [{"EventType": "Preempt", "NotBefore": "soon"}]}, "NotBefore"),
        ({"Events": [{"EventType": "Preempt", "Resources": "vm-1"}]}, "Resources"),
        ({"action": "stop", "time": True}, "time"),
    ],
)
def test_a_bad_notice_is_refused_with_the_field(body: object, field: str) -> None:
    with pytest.raises(BadNotice, match=field):
        parse_notices(body, "own", NOW)


async def post(
    port: int, body: bytes, path: str = "/notice", secret: str = "s3"
) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: "
        f"{len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), json.loads(answer.partition("\r\n\r\n")[2])


class Port:
    """A port on a free TCP port, and the notices it handled."""

    def __init__(self, secret: str) -> None:
        self.handled: list[Notice] = []
        self._port = NoticePort("127.0.0.1:0", self._handle, secret, FakeClock(NOW))

    async def __aenter__(self) -> Port:
        await self._port.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._port.stop()

    @property
    def number(self) -> int:
        return int(self._port.address.rpartition(":")[2])

    async def _handle(self, notice: Notice) -> NoticeOutcome:
        self.handled.append(notice)
        return NoticeOutcome(replaced=True, draining=True)


@pytest.mark.threat("forged notice of termination")
async def test_the_port_handles_notices_of_callers_with_the_secret() -> None:
    async with Port("s3") as port:
        answer = await post(port.number, json.dumps(WARNING).encode())
        assert answer == (200, {"notices": 1, "replaced": 1, "draining": 1})
        action = json.dumps({"action": "terminate", "time": "2027-01-15T08:02:00Z"}).encode()
        assert (await post(port.number, action, "/notice?instance=node-7"))[0] == 200
        assert [notice.instance for notice in port.handled] == ["i-1", "node-7"]


@pytest.mark.parametrize(
    ("body", "changes", "status"),
    [
        (b"{}", {"secret": "wrong"}, 401),
        (b"{", {}, 400),
        (b"[" * 60_000, {}, 400),
        (b'{"instance": ""}', {}, 400),
        (b"{}", {"path": "/elsewhere"}, 404),
    ],
)
async def test_a_bad_request_is_refused(body: bytes, changes: dict[str, str], status: int) -> None:
    async with Port("s3") as port:
        assert (await post(port.number, body, **changes))[0] == status
        assert not port.handled


async def test_a_port_without_a_secret_refuses_everybody() -> None:
    async with Port("") as port:
        assert (await post(port.number, b'{"instance": "m"}', secret=""))[0] == 401
        assert not port.handled
