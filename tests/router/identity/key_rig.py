"""A router on a store, whose keys operators make and end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from penstock.api.router.v1 import keys_pb2 as keys
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.key_service import KeyServicer
from penstock.router.identity.key_store import KeyStore
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import to_fault
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually

from ..rig import MODEL
from ..routed import Routed, start
from ..scripted import ScriptedInstance

OLGA = Call(Principal("", user="olga"))


def asked(ttl_ms: int = 0, note: str = "", **scope: Any) -> keys.CreateKeyRequest:
    """A request for a key with this scope."""
    return keys.CreateKeyRequest(scope=keys.KeyScope(**scope), ttl_ms=ttl_ms, note=note)


@dataclass
class KeyRig:
    """A router on a store, and the operators' service of its keys."""

    routed: Routed
    instance: ScriptedInstance
    service: KeyServicer

    async def made(self, **scope: Any) -> tuple[keys.Key, tuple[tuple[str, str], ...]]:
        """A key of `acme` that the router has heard of, and what its callers send."""
        request = asked(organisation="acme", **scope)
        answer = await self.service.CreateKey(request, OLGA)
        metadata = (("authorization", f"Bearer {answer.secret}"),)
        await eventually(lambda: self.is_accepted(metadata))
        return answer.key, metadata

    async def is_accepted(self, metadata: tuple[tuple[str, str], ...]) -> bool:
        try:
            await self.routed.stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            assert to_fault(error).reason is Reason.UNAUTHENTICATED
            return False
        return True

    async def revoke(self, key: keys.Key) -> None:
        await self.service.RevokeKey(keys.RevokeKeyRequest(id=key.id, reason="leaked"), OLGA)

    async def is_refused(self, metadata: tuple[tuple[str, str], ...]) -> bool:
        return not await self.is_accepted(metadata)


@contextlib.asynccontextmanager
async def key_rig(folder: Path) -> AsyncIterator[KeyRig]:
    """A router with one scripted instance, on a store in the folder."""
    instance = ScriptedInstance()
    async with (
        embedded_store(folder / "store") as url,
        open_store(url) as store,
        open_store(url) as operators,
        start(RouterSettings(default_model=MODEL), store=store) as routed,
    ):
        await routed.join("a", instance, MODEL)
        yield KeyRig(routed, instance, KeyServicer(KeyStore(operators), SystemClock()))
