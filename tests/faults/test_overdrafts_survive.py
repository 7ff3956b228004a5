"""A router that is killed while the limiter is away: what it let calls spend beyond a lease is in
the ledger afterwards.
"""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.bench.faults.rig import MODEL, ROUTERS, TOKEN, Rig, running
from penstock.rpc.call import Call, Principal
from penstock.rpc.peers.stream import connect
from penstock.testkit.eventually import eventually

TENANT = "acme"
BUDGET = {
    "name": "calls",
    "kind": "budget",
    "counts": "requests",
    "limit": 10**9,
    "window": "month",
    "calendar": True,
    "adaptive": False,
}
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
FIRST_CALLS = 32
"""Calls for which a first lease has room."""
SETTLED_S = 60.0


async def call(rig: Rig) -> None:
    request = pb.EmbedRequest(texts=["where is my order"], options=pb.CallOptions(model=MODEL))
    await rig.routers[ROUTERS[0]].Embed(request, metadata=rig.metadata(TENANT), timeout=10.0)


@pytest.mark.processes
async def test_what_a_killed_router_overdrew_is_settled_by_the_next(tmp_path: Path) -> None:
    of_routers = {"PENSTOCK_LEASE_OVERDRAFT_SHARE": "1"}
    async with running(tmp_path / "data", (TENANT,), [BUDGET], of_routers) as rig:
        await call(rig)
        answered = 1
        rig.signal("limiter", signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):  # once the overdraft is used up as well
            while True:
                await call(rig)
                answered += 1
        assert answered > FIRST_CALLS + 1

        rig.signal(ROUTERS[0], signal.SIGKILL)
        await rig.kill("limiter")
        await rig.kill(ROUTERS[0])

        peer = connect(rig.limiter_address, LIMITER, token=TOKEN)

        async def ledger() -> tuple[int, int]:
            """Calls committed and held."""
            request = limiter_pb2.GetUsageRequest(model=MODEL)
            usage = await peer.call("GetUsage", request, Call(Principal(TENANT, key_id=TENANT)))
            (rule,) = usage.rules
            return int(rule.committed.requests), int(rule.held.requests)

        async def is_settled() -> bool:
            committed, held = await ledger()
            return held == 0 and committed >= answered

        await eventually(is_settled, SETTLED_S, every_s=0.2)
        committed, _ = await ledger()
        assert committed <= answered + 1, "the refused call may have been in flight"
        await peer.close()
