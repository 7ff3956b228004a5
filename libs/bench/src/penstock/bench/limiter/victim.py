"""A caller that gets its answers and is killed before it settles: holds of calls, and a lease that
it has spent from.
"""

from __future__ import annotations

import asyncio
import sys

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.rpc.call import Call, Principal
from penstock.rpc.peers.stream import connect

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
CALLS, INPUT = 200, 120


async def main(address: str, token: str) -> None:
    """Hold, lease, spend, say what was spent, and wait for the end."""
    peer = connect(address, LIMITER, token=token)
    most, least = pb.Amount(requests=1, microusd=1_500), pb.Amount(microusd=INPUT)
    for number in range(CALLS):
        request = pb.ReserveRequest(hold_id=f"v{number}", amount=most, least=least)
        await peer.call("Reserve", request, Call(Principal("victim")))
    wanted = pb.GrantLeaseRequest(
        lease_id="lv", wanted=pb.Amount(requests=500, microusd=400_000), least=most
    )
    granted: pb.GrantLeaseResponse = await peer.call(
        "GrantLease", wanted, Call(Principal("leaser"))
    )
    print(
        CALLS * INPUT, granted.granted.microusd, flush=True
    )  # everything that was leased has been spent
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
