"""How long a revoked key is served still: over an open item stream, from the operator's request to
the first item that is refused; and whether its calls in flight end.
"""

from __future__ import annotations

import time
from pathlib import Path

from penstock.api.router.v1 import keys_pb2 as keys
from penstock.api.router.v1 import router_pb2 as pb
from penstock.hosting.life import serving
from penstock.router.api.key_service import KeyServicer
from penstock.router.build import ROUTER, build
from penstock.router.identity.key_store import KeyStore
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually
from penstock.testkit.outside import outside_for_tests

OPERATOR = Call(Principal("", user="benchmark"))


async def measure(folder: Path, samples: int) -> list[float]:
    """Milliseconds from the request to revoke a key to the refusal of its next item, for each of
    several keys at two routers on one store: the later router counts.
    """
    async with embedded_store(folder / "store") as url, open_store(url) as store:
        settings = RouterSettings(
            listen="127.0.0.1:0", ledger_url=url, internal_token="t", grace_s=0.0
        )
        first, second = (
            serving(build(settings, outside_for_tests(settings)), settings) for _ in range(2)
        )
        async with first as one, second as other:
            service = KeyServicer(KeyStore(store), SystemClock())
            return [await _one(service, (one, other)) for _ in range(samples)]


async def _one(service: KeyServicer, addresses: tuple[str, ...]) -> float:
    request = keys.CreateKeyRequest(scope=keys.KeyScope(organisation="acme"))
    made = await service.CreateKey(request, OPERATOR)
    metadata = (("authorization", f"Bearer {made.secret}"),)
    streams = [connect(address, ROUTER, metadata=metadata) for address in addresses]
    unary = [UnaryPeer(open_channel(address), ROUTER, metadata=metadata) for address in addresses]
    try:
        for peer in (*unary, *streams):
            await eventually(lambda peer=peer: _is_served(peer))  # type: ignore[misc]
        began_s = time.perf_counter()
        await service.RevokeKey(keys.RevokeKeyRequest(id=made.key.id), OPERATOR)
        for peer in (*streams, *unary):
            while await _is_served(peer):
                pass
        taken_ms = (time.perf_counter() - began_s) * 1e3
        for peer in unary:
            await _check_is_refused(peer)
        return taken_ms
    finally:
        for peer in (*streams, *unary):
            await peer.close()


async def _is_served(peer: Peer) -> bool:
    """Whether a call succeeds; a stream that is being ended fails in several ways."""
    try:
        await peer.call("ListModels", pb.ListModelsRequest(), Call())
    except Fault:
        return False
    return True


async def _check_is_refused(peer: Peer) -> None:
    """Raise unless the key itself is why a call fails."""
    try:
        await peer.call("ListModels", pb.ListModelsRequest(), Call())
    except Fault as fault:
        if fault.reason is Reason.UNAUTHENTICATED:
            return
        raise
    raise AssertionError("a revoked key is served")
