"""Keys of the store, made and ended by operators, at a router that serves over real connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import keys_pb2 as keys
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.key_service import KeyServicer
from penstock.router.identity.key_store import KeyStore
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import connect
from penstock.rpc.reasons import Reason
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

from ..rig import embed, fault_of
from ..routed import METADATA
from ..scripted import Behaviour
from .key_rig import OLGA, asked, key_rig
from .key_rig import KeyRig as Rig

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
RANDOM = "A" * 43


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with key_rig(tmp_path) as made:
        yield made


async def test_a_key_serves_its_callers_and_is_kept_without_its_text(
    rig: Rig, tmp_path: Path
) -> None:
    key, metadata = await rig.made(team="t", user="ann", tags=["x"])
    await rig.routed.stub.Embed(embed(), metadata=metadata)
    [call] = rig.instance.calls
    assert call.principal == Principal("acme", "t", "ann", key.id, ("x",))
    text = metadata[0][1].removeprefix("Bearer ").rpartition("_")[2]
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert key.id.encode() in kept
    assert text.encode() not in kept


async def test_keys_are_listed_by_organisation_and_without_the_ended_ones(rig: Rig) -> None:
    first, _ = await rig.made()
    second, _ = await rig.made()
    await rig.revoke(second)
    listed = await rig.service.ListKeys(keys.ListKeysRequest(organisation="acme"), OLGA)
    assert [key.id for key in listed.keys] == [first.id]
    everything = await rig.service.ListKeys(keys.ListKeysRequest(include_ended=True), OLGA)
    assert {key.id for key in everything.keys} == {first.id, second.id}
    none = await rig.service.ListKeys(keys.ListKeysRequest(organisation="other"), OLGA)
    assert not none.keys


async def test_a_rotated_key_has_both_texts_until_the_overlap_ends(rig: Rig) -> None:
    key, earlier = await rig.made()
    long = await rig.service.RotateKey(keys.RotateKeyRequest(id=key.id, overlap_ms=60_000), OLGA)
    later = (("authorization", f"Bearer {long.secret}"),)
    await eventually(lambda: rig.is_accepted(later))
    assert await rig.is_accepted(earlier)
    at_once = await rig.service.RotateKey(keys.RotateKeyRequest(id=key.id), OLGA)
    await eventually(lambda: rig.is_refused(later))
    assert await rig.is_refused(earlier)
    assert await rig.is_accepted((("authorization", f"Bearer {at_once.secret}"),))


@pytest.mark.threat("revoked key on an open item stream")
async def test_a_revoked_key_ends_its_item_streams(rig: Rig) -> None:
    key, metadata = await rig.made()
    peer = connect(rig.routed.address, ROUTER, metadata=metadata)
    async with contextlib.aclosing(_Closing(peer)):
        await peer.call("Embed", embed(), Call())
        served = len(rig.instance.calls)
        await rig.revoke(key)
        await eventually(lambda: _is_unauthenticated(peer))
        after = len(rig.instance.calls)
        assert await _refusal_of(peer) is not None
        assert len(rig.instance.calls) == after >= served


@pytest.mark.threat("revoked key with a call in flight")
async def test_a_revoked_key_ends_its_calls_in_flight(rig: Rig) -> None:
    key, metadata = await rig.made()
    rig.instance.behaviour = Behaviour.HANGS
    hanging = asyncio.ensure_future(rig.routed.stub.Embed(embed(), metadata=metadata))
    others = asyncio.ensure_future(rig.routed.stub.Embed(embed("b"), metadata=METADATA))
    await eventually(lambda: len(rig.instance.calls) == 2)
    await rig.revoke(key)
    assert (await fault_of(hanging)).reason is Reason.UNAUTHENTICATED
    await asyncio.wait_for(rig.instance.cancelled.wait(), 10)
    assert not others.done()
    others.cancel()


@pytest.mark.threat("revoked key on an open server stream")
async def test_a_revoked_key_ends_its_open_watches(rig: Rig) -> None:
    key, metadata = await rig.made()
    rig.instance.behaviour = Behaviour.HANGS
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
    job = (await rig.routed.stub.SubmitJob(pb.SubmitJobRequest(task=task), metadata=METADATA)).job
    await eventually(lambda: len(rig.instance.calls) == 1)
    watch = rig.routed.stub.WatchJob(pb.WatchJobRequest(id=job.id), metadata=metadata)
    assert (await watch.read()).job.id == job.id
    await rig.revoke(key)

    async def to_its_end() -> None:
        while await watch.read() is not grpc.aio.EOF:
            pass

    assert (await fault_of(to_its_end())).reason is Reason.UNAUTHENTICATED
    await rig.routed.stub.CancelJob(pb.CancelJobRequest(id=job.id), metadata=METADATA)


@pytest.mark.threat("expired key on an open stream")
async def test_a_key_that_expires_ends_its_item_streams(rig: Rig) -> None:
    request = asked(organisation="acme", ttl_ms=2_000)
    answer = await rig.service.CreateKey(request, OLGA)
    metadata = (("authorization", f"Bearer {answer.secret}"),)
    await eventually(lambda: rig.is_accepted(metadata))
    peer = connect(rig.routed.address, ROUTER, metadata=metadata)
    async with contextlib.aclosing(_Closing(peer)):
        await eventually(lambda: _is_unauthenticated(peer))


@pytest.mark.threat("job of a revoked key")
async def test_a_job_of_a_revoked_key_is_not_served(rig: Rig) -> None:
    key, metadata = await rig.made()
    rig.instance.behaviour = Behaviour.IS_DOWN
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
    job = (await rig.routed.stub.SubmitJob(pb.SubmitJobRequest(task=task), metadata=metadata)).job
    await rig.revoke(key)

    async def failed() -> bool:
        request = pb.GetJobRequest(id=job.id)
        shown = (await rig.routed.stub.GetJob(request, metadata=METADATA)).job
        return shown.state == pb.JOB_STATE_FAILED and shown.status.reason == "PERMISSION_DENIED"

    await eventually(failed, 20)


async def test_each_change_stands_in_the_audit_log(rig: Rig) -> None:
    key, _ = await rig.made()
    await rig.service.RotateKey(keys.RotateKeyRequest(id=key.id, reason="yearly"), OLGA)
    await rig.revoke(key)
    log = await rig.service.ListAudit(keys.ListAuditRequest(limit=3), OLGA)
    assert [(row.action, row.operator, row.reason) for row in log.changes] == [
        ("RevokeKey", "olga", "leaked"),
        ("RotateKey", "olga", "yearly"),
        ("CreateKey", "olga", ""),
    ]
    assert {(row.key_id, row.organisation) for row in log.changes} == {(key.id, "acme")}
    assert all(row.at_unix_ms for row in log.changes)


@pytest.mark.threat("guessed key id")
async def test_the_id_of_a_key_is_no_key(rig: Rig) -> None:
    key, _ = await rig.made()
    for guess in (
        key.id,
        f"psk_{key.id}",
        f"psk_{key.id}_{'A' * 43}",
        f"psk_{'0' * 24}_{'A' * 43}",
    ):
        assert await rig.is_refused((("authorization", f"Bearer {guess}"),))


@pytest.mark.threat("credential sent twice")
async def test_two_credentials_are_refused(rig: Rig) -> None:
    _, metadata = await rig.made()
    assert await rig.is_refused((*metadata, *METADATA))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (keys.CreateKeyRequest(), "scope.organisation"),
        (asked(organisation="a\r\nb"), "scope.organisation"),
        (
            asked(organisation="a", team="t" * 129),
            "scope.team",
        ),
        (asked(organisation="a", models=[""]), "scope.models"),
        (
            asked(organisation="a", tags=["x"] * 33),
            "scope.tags",
        ),
        (asked(organisation="a", ttl_ms=-1), "ttl_ms"),
        (asked(organisation="a", note="\x1b[2J"), "note"),
    ],
)
@pytest.mark.threat("header injection by a key's names")
async def test_a_scope_that_cannot_be_is_refused(
    rig: Rig, request_: keys.CreateKeyRequest, field: str
) -> None:
    with pytest.raises(Fault) as refused:
        await rig.service.CreateKey(request_, OLGA)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert refused.value.field.startswith(field)


async def test_a_key_that_is_not_there_cannot_be_changed(rig: Rig) -> None:
    with pytest.raises(Fault) as refused:
        await rig.service.RevokeKey(keys.RevokeKeyRequest(id="none"), OLGA)
    assert refused.value.reason is Reason.NOT_FOUND
    key, _ = await rig.made()
    await rig.revoke(key)
    with pytest.raises(Fault, match="revoked"):
        await rig.service.RotateKey(keys.RotateKeyRequest(id=key.id), OLGA)


class _Closing:
    """A peer for `aclosing`."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    async def aclose(self) -> None:
        await self._peer.close()


async def _is_unauthenticated(peer: Any) -> bool:
    """Whether the stream, opened anew where it was ended, refuses its caller."""
    refusal = await _refusal_of(peer)
    return refusal is not None and refusal.reason is Reason.UNAUTHENTICATED


async def _refusal_of(peer: Any) -> Fault | None:
    """Why a call over the stream fails; None where it is served."""
    try:
        await peer.call("Embed", embed(), Call())
    except Fault as fault:
        return fault
    return None


async def test_a_full_store_forgets_ended_keys_and_then_refuses(tmp_path: Path) -> None:
    clock = FakeClock(1_000_000.0)
    async with embedded_store(tmp_path) as url:
        client = open_store(url)
        store = KeyStore(client, max_keys=2)
        service = KeyServicer(store, clock)
        kept = (await service.CreateKey(asked(organisation="acme"), OLGA)).key
        await service.CreateKey(asked(ttl_ms=1_000, organisation="acme"), OLGA)
        with pytest.raises(Fault, match="revoke some") as refused:
            await service.CreateKey(asked(organisation="acme"), OLGA)
        assert refused.value.reason is Reason.RESOURCE_EXHAUSTED
        await clock.advance(2.0)
        made = (await service.CreateKey(asked(organisation="acme"), OLGA)).key
        _, records = await store.read()
        await client.aclose()
    assert set(records) == {kept.id, made.id}
