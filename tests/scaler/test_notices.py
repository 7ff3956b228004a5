"""Notices in every cloud's shape, over a real HTTP door; bad ones are refused with the field."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from penstock.scaler.api.notice_http import NoticePort
from penstock.scaler.spot.notices import BadNotice, Notice, parse
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
def test_each_shape_is_understood(body: dict[str, Any], found: list[Notice]) -> None:
    assert parse(body, "own", NOW) == found


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
def test_what_is_no_notice_is_named(body: object, field: str) -> None:
    with pytest.raises(BadNotice, match=field):
        parse(body, "own", NOW)


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


async def test_the_door_takes_notices_from_who_has_the_secret() -> None:
    told: list[Notice] = []

    async def act(notice: Notice) -> tuple[bool, bool]:
        told.append(notice)
        return True, True

    served = NoticePort("127.0.0.1:0", act, "s3", FakeClock(NOW))
    await served.start()
    port = int(served.address.rpartition(":")[2])
    assert await post(port, json.dumps(WARNING).encode()) == (
        200,
        {"notices": 1, "replaced": 1, "draining": 1},
    )
    spoken = json.dumps({"action": "terminate", "time": "2027-01-15T08:02:00Z"}).encode()
    assert (await post(port, spoken, "/notice?instance=node-7"))[0] == 200
    assert [notice.instance for notice in told] == ["i-1", "node-7"]
    assert (await post(port, b"{}", secret="wrong"))[0] == 401
    assert (await post(port, b"{"))[0] == 400
    assert (await post(port, b"[" * 60_000))[0] == 400
    assert (await post(port, b'{"instance": ""}'))[0] == 400
    assert (await post(port, b"{}", "/elsewhere"))[0] == 404
    assert len(told) == 2
    await served.stop()


async def test_a_door_without_a_secret_lets_nobody_in() -> None:
    async def act(notice: Notice) -> tuple[bool, bool]:
        raise AssertionError(notice)

    served = NoticePort("127.0.0.1:0", act, "", FakeClock(NOW))
    await served.start()
    port = int(served.address.rpartition(":")[2])
    assert (await post(port, b'{"instance": "m"}', secret=""))[0] == 401
    await served.stop()
