"""The ledger, jobs, keys, the registry and runs on a real cluster of three servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import keys_pb2 as keys
from penstock.api.router.v1 import router_pb2 as pb
from penstock.bench.faults.crash_loss import loss_of, settle_until_killed
from penstock.router.api.key_service import KeyServicer
from penstock.router.identity.key_store import KeyStore
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.durability import Fsyncs
from penstock.service.store import check_store, open_store
from penstock.service.store_cluster import as_cluster, keys_by_server
from penstock.testkit.eventually import eventually
from penstock.testkit.store_servers import crossslot_errors, store_cluster

from ..rig import MODEL, embed, fault_of
from ..routed import METADATA, OTHER_METADATA, start
from ..scripted import ScriptedInstance

OLGA = Call(Principal("", user="olga"))
TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A cluster on which no command may have keys of several slots."""
    async with store_cluster(tmp_path) as url:
        yield url
        assert await crossslot_errors(url) == 0


async def test_a_router_keeps_jobs_keys_runs_and_instances_in_a_cluster(url: str) -> None:
    async with (
        open_store(url) as store,
        open_store(url) as operators,
        start(RouterSettings(default_model=MODEL), store=store) as routed,
    ):
        await routed.join("a", ScriptedInstance(), MODEL)
        stub = routed.stub
        for metadata in (METADATA, OTHER_METADATA):
            submit = pb.SubmitJobRequest(
                task=TASK, idempotency_token="t", options=pb.CallOptions(run_id="run")
            )
            job = (await stub.SubmitJob(submit, metadata=metadata)).job
            watch = stub.WatchJob(pb.WatchJobRequest(id=job.id), metadata=metadata)
            states = [state.job.state async for state in watch]
            assert states[-1] == pb.JOB_STATE_SUCCEEDED
            await stub.CancelRun(pb.CancelRunRequest(run_id="run"), metadata=metadata)
        service = KeyServicer(KeyStore(operators), SystemClock())
        request = keys.CreateKeyRequest(scope=keys.KeyScope(organisation="acme"))
        made = await service.CreateKey(request, OLGA)
        sent = (("authorization", f"Bearer {made.secret}"),)

        async def served() -> bool:
            try:
                await stub.Embed(embed(), metadata=sent)
            except Exception:
                return False
            return True

        await eventually(served)
        await service.RevokeKey(keys.RevokeKeyRequest(id=made.key.id), OLGA)

        async def refused() -> bool:
            return not await served()

        await eventually(refused)
        fault = await fault_of(stub.Embed(embed(), metadata=sent))
        assert fault.reason is Reason.UNAUTHENTICATED


async def test_the_ledger_settles_in_a_cluster_and_knows_when_it_is_durable(url: str) -> None:
    answered = await settle_until_killed(url, True, 1.5, lambda: None, stop_after=200)
    loss = await loss_of(url, answered)
    assert (loss.answered >= 200, loss.lost) == (True, 0)


async def test_a_sync_is_waited_for_at_each_server(url: str) -> None:
    async with open_store(url) as client:
        await check_store(client, "PENSTOCK_LEDGER_URL")
        cluster = as_cluster(client)
        assert cluster is not None
        assert len(keys_by_server(cluster, "penstock:x")) == 3
        fsyncs = Fsyncs(client)
        await fsyncs.learn()
        assert fsyncs.confirmation == "waitaof"
        await fsyncs.wait()
        await fsyncs.close()
