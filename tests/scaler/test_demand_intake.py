"""Services that cannot be asked: no news while all of them start, a warning afterwards."""

from __future__ import annotations

import logging

import pytest
from penstock.api.router.v1 import router_pb2
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.scaler.pools.demand_intake import STARTING_S, DemandIntake
from penstock.scaler.pools.demand_source import DemandSource
from penstock.service.free_ports import free_address
from penstock.testkit.clock import FakeClock

REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]


@pytest.mark.parametrize(("after_s", "warned"), [(0.0, False), (STARTING_S, True)])
async def test_nobody_is_missed_while_all_are_starting(
    caplog: pytest.LogCaptureFixture, after_s: float, warned: bool
) -> None:
    clock = FakeClock()
    peer = UnaryPeer(open_channel(free_address()), REGISTRY, clock=clock)
    demand = DemandIntake(DemandSource(None, None, peer, clock), clock)
    await clock.advance(after_s)
    with caplog.at_level(logging.WARNING):
        await demand.count_instances({})
    assert any("cannot be asked" in record.message for record in caplog.records) is warned
    await peer.close()
