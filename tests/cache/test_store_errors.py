"""A store that does not answer: look-ups miss, all else is UNAVAILABLE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.build import Models
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.store import open_store
from penstock.testkit.chats import chat, chat_result

ANN = Call(Principal("acme", team="core", tags=("support",)))
MISS = common_pb2.CACHE_OUTCOME_MISS


async def test_without_a_store_look_ups_miss_and_other_calls_are_unavailable(
    rig: Any, tmp_path: Path
) -> None:
    client = open_store(f"unix://{tmp_path}/secret-socket", retries=0)
    cache = rig.assemble(client, Models())
    missed = await rig.look_up(cache, chat("x"))
    assert missed.receipt.outcome == MISS
    answer = pb.Answer(scope=pb.Scope(model="m"), task=chat("x"), result=chat_result("x"))
    for call in (
        cache.servicer.Store(pb.StoreRequest(token=missed.token, result=chat_result("x")), ANN),
        cache.servicer.Invalidate(pb.InvalidateRequest(model="chat"), ANN),
        cache.servicer.StoreAll(pb.StoreAllRequest(answers=[answer]), ANN),
        cache.servicer.ListKeys(pb.ListKeysRequest(), ANN),
    ):
        with pytest.raises(Fault, match="does not answer") as refused:
            await call
        assert refused.value.code == grpc.StatusCode.UNAVAILABLE
        assert "secret" not in str(refused.value)
    await client.aclose()
