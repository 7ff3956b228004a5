"""A caller that gets its answers and is killed before it settles them.

It holds money for calls, and spends from a lease. Arguments: address of a limiter, internal token.
"""

from __future__ import annotations

import asyncio
import sys

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.rpc.call import Call, Principal
from penstock.rpc.peers.stream import connect

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
CALLS, INPUT_MICROUSD = 200, 120
MAX_AMOUNT = pb.Amount(requests=1, microusd=1_500)


async def main(address: str, token: str) -> None:
    """Hold, lease, print what both have spent in micro-dollars, and wait to be killed."""
    peer = connect(address, LIMITER, token=token)
    least = pb.Amount(microusd=INPUT_MICROUSD)
    for number in range(CALLS):
        request = pb.ReserveRequest(hold_id=f"v{number}", amount=MAX_AMOUNT, least=least)
        await peer.call("Reserve", request, Call(Principal("victim")))
    wanted = pb.GrantLeaseRequest(
        lease_id="lv", wanted=pb.Amount(requests=500, microusd=400_000), least=MAX_AMOUNT
    )
    lease: pb.GrantLeaseResponse = await peer.call("GrantLease", wanted, Call(Principal("leaser")))
    # The whole lease counts as spent.
    print(CALLS * INPUT_MICROUSD, lease.granted.microusd, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
