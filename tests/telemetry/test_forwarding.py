"""Forwarding: what came in reaches another endpoint, through restarts, in bounded space."""

from __future__ import annotations

from pathlib import Path

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call
from penstock.service.clock import SystemClock
from penstock.telemetry.export.forwarding import Forwarder
from penstock.testkit.eventually import eventually

from .conftest import RunningTelemetry, running
from .otlp import export, export_request, otlp_span


async def intake(service: RunningTelemetry) -> pb.GetIntakeResponse:
    response = await service.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    assert isinstance(response, pb.GetIntakeResponse)
    return response


async def test_an_export_is_forwarded_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "far") as far:
        async with running(tmp_path / "near", forward_endpoint="127.0.0.1:1") as near:
            await export(near.address, export_request(otlp_span(1)).SerializeToString())
            counts = await intake(near)
            assert (counts.forward_queue, counts.forwarded) == (1, 0)
        async with running(tmp_path / "near", forward_endpoint=far.address) as near:

            async def is_forwarded() -> bool:
                return bool((await intake(near)).forwarded)

            await eventually(is_forwarded)
        assert (await intake(far)).spans == 1


async def test_a_full_queue_drops_the_oldest_export(tmp_path: Path) -> None:
    forwarder = Forwarder("127.0.0.1:1", tmp_path, 100, SystemClock())
    for number in range(5):
        forwarder.enqueue("traces", bytes([number]) * 40)
    assert (forwarder.queued, forwarder.dropped) == (2, 3)
    assert sorted(path.read_bytes()[0] for path in tmp_path.iterdir()) == [3, 4]
    await forwarder.close()


async def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    before = Forwarder("127.0.0.1:1", tmp_path, 100, SystemClock())
    before.enqueue("traces", b"first")
    await before.close()
    after = Forwarder("127.0.0.1:1", tmp_path, 100, SystemClock())
    after.enqueue("traces", b"second")
    assert after.queued == 2
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"first", b"second"]
    await after.close()
