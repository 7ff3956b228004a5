"""Whether every command fits a cluster: settlements, keys and jobs of several organisations are
made on a real one of three servers, and commands that it refused for keys of several slots are
counted.
"""

from __future__ import annotations

from pathlib import Path

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import keys_pb2 as keys
from penstock.api.router.v1 import router_pb2 as pb
from penstock.bench.faults.crash_loss import loss_of, settle_until_killed
from penstock.router.api.key_service import KeyServicer
from penstock.router.identity.key_store import KeyStore
from penstock.router.jobs.job_store import JobStore
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.store import open_store
from penstock.testkit.store_servers import crossslot_errors, store_cluster

ORGANISATIONS = tuple(f"organisation-{number}" for number in range(24))
OPERATOR = Call(Principal("", user="benchmark"))
SETTLEMENTS = 500
DEADLINE_MS = 60_000


async def measure(folder: Path) -> int:
    """The number of refused commands; raises where something was not kept."""
    async with store_cluster(folder) as url:
        answered = await settle_until_killed(url, True, 2.0, _nothing, stop_after=SETTLEMENTS)
        if (await loss_of(url, answered)).lost:
            raise AssertionError("a settlement was not kept")
        for organisation in ORGANISATIONS:
            await _use(url, organisation)
        return await crossslot_errors(url)


async def _use(url: str, organisation: str) -> None:
    """A key and a job of an organisation, from their beginning to their end."""
    async with open_store(url) as store:
        service = KeyServicer(KeyStore(store), SystemClock())
        request = keys.CreateKeyRequest(scope=keys.KeyScope(organisation=organisation))
        key = (await service.CreateKey(request, OPERATOR)).key
        await service.RevokeKey(keys.RevokeKeyRequest(id=key.id), OPERATOR)
        jobs = JobStore(store)
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
        options = pb.CallOptions(run_id="run")
        submission = pb.SubmitJobRequest(task=task, options=options, idempotency_token="t")
        job_id, _ = await jobs.submit(submission, Principal(organisation), 2, DEADLINE_MS)
        taken = await jobs.begin(job_id)
        if taken is None or await jobs.of_run(organisation, "run") != [job_id]:
            raise AssertionError("a job was not kept")
        await jobs.end(job_id, pb.Job(state=pb.JOB_STATE_SUCCEEDED), taken.attempts)
        await jobs.close()


def _nothing() -> None:
    """The cluster is not killed."""
