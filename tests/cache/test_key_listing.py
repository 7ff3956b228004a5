"""ListKeys: all keys page by page, then those of new entries, from any replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.build import Cache
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.store import open_store
from penstock.tasks.answer_keys import FINGERPRINT_BYTES, exact_key, tenant_of
from penstock.testkit.store_servers import crossslot_errors, store_cluster

from .conftest import Rig

ANN = Call(Principal("acme", team="core", tags=("support",)))
ENTRIES = 2_500


def embed_task(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


def answer(text: str) -> pb.Answer:
    return pb.Answer(
        scope=pb.Scope(model="mini"),
        task=embed_task(text),
        result=inference_pb2.TaskResult(revision="7"),
    )


async def list_all(cache: Cache, cursor: str = "") -> tuple[set[bytes], str, bytes]:
    """All pages up to the first complete one: fingerprints, the next cursor, the salt."""
    fingerprints: set[bytes] = set()
    while True:
        page = await cache.servicer.ListKeys(pb.ListKeysRequest(cursor=cursor), ANN)
        cursor = page.cursor
        fingerprints |= {
            page.fingerprints[start : start + FINGERPRINT_BYTES]
            for start in range(0, len(page.fingerprints), FINGERPRINT_BYTES)
        }
        if page.complete:
            return fingerprints, cursor, page.salt


async def test_all_keys_are_listed_and_then_new_ones_at_any_replica(rig: Any) -> None:
    cache, other = await rig.make(), await rig.make()
    for number in range(ENTRIES):
        await rig.client.set(f"penstock:cache:abc:e:{number:016x}{0:016x}", b"0")
    found, cursor, salt = await list_all(cache)
    assert found == {number.to_bytes(FINGERPRINT_BYTES, "big") for number in range(ENTRIES)}
    request = pb.StoreAllRequest(answers=[answer("a"), answer("b")])
    assert (await other.servicer.StoreAll(request, ANN)).stored == 2
    found, cursor, _ = await list_all(cache, cursor)
    tenant = tenant_of(ANN.principal)
    bodies = [embed_task(text).SerializeToString(deterministic=True) for text in ("a", "b")]
    keys = [exact_key(salt, tenant, "", "mini", b"", body) for body in bodies]
    assert found == {bytes.fromhex(key)[:FINGERPRINT_BYTES] for key in keys}
    assert (await list_all(other, cursor))[0] == set()


@pytest.mark.parametrize(
    "cursor", ["x", "scan:", "scan:1:2", "follow:0:a-b", "scan:-1:0-0", f"scan:{10**30}:0-0"]
)
async def test_a_cursor_that_was_not_given_is_refused(rig: Any, cursor: str) -> None:
    cache = await rig.make()
    with pytest.raises(Fault) as refused:
        await cache.servicer.ListKeys(pb.ListKeysRequest(cursor=cursor), ANN)
    assert (refused.value.code, refused.value.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "cursor",
    )


async def test_answers_are_stored_found_listed_and_removed_in_a_cluster(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(60)]
    async with store_cluster(tmp_path) as url, open_store(url) as client:
        rig = Rig(client)
        cache, other = await rig.make(), await rig.make()
        for text in texts:
            await cache.servicer.StoreAll(pb.StoreAllRequest(answers=[answer(text)]), ANN)
        for text in texts:
            found = await rig.look_up(cache, embed_task(text), ANN, model="mini")
            assert found.result.revision == "7"
        assert len((await list_all(other))[0]) == len(texts)
        removed = await cache.servicer.Invalidate(pb.InvalidateRequest(model="mini"), ANN)
        assert removed.removed == len(texts)
        await rig.close()
        assert await crossslot_errors(url) == 0
