"""Jobs against the real Redis: nothing lost, one end for the caller, crashes and cancels
included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.state import Outcome
from penstock.router.jobs.job_store import KEEP_S
from penstock.router.jobs.job_watchers import MAX_WATCHERS_OF_KEY
from penstock.router.jobs.jobs import Jobs
from penstock.router.requests.resolved import JobTry
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually

SETTINGS = RouterSettings(
    job_lease_ms=300, callback_hosts=("hooks.example.com",), callback_secret="s3cret"
)
ACME = Call(Principal("acme", key_id="k1"))


class Server:
    """Serves jobs as told: counts, answers, fails, hangs."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.faults: list[Fault] = []
        self.hang = asyncio.Event()
        self.hang.set()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: pb.SubmitJobRequest, call: Call, attempt: JobTry) -> Outcome:
        self.served.append(request.task.embed.texts[0])
        try:
            await self.hang.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.faults:
            raise self.faults.pop(0)
        result = inference_pb2.TaskResult(revision=call.principal.organisation)
        return Outcome(result, common_pb2.Receipt(request_id="r"))


class Client:
    """Passes everything to a client of the store."""

    def __init__(self, address: str) -> None:
        self._client = open_store(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Twice(Client):
    """A client that sends every script twice, as one does whose answers come too late."""

    async def eval(self, *arguments: Any) -> Any:
        await self._client.eval(*arguments)
        return await self._client.eval(*arguments)


class CountingStore(Client):
    """A client that counts how often a job is read whole."""

    whole_reads = 0

    async def hgetall(self, key: str) -> Any:
        self.whole_reads += 1
        return await self._client.hgetall(key)


class Make:
    """Makes routers' jobs on one store; `settings` are changes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.made: list[tuple[Jobs, Any]] = []

    def __call__(
        self, server: Server, *, is_started: bool = True, store: Any = None, **settings: int
    ) -> Jobs:
        store = store or open_store(self.address)
        jobs = Jobs(SETTINGS.model_copy(update=settings), store, server, SystemClock())
        if is_started:
            jobs.start()
        self.made.append((jobs, store))
        return jobs


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    async with embedded_store(tmp_path / "redis") as address:
        maker = Make(address)
        yield maker
        for jobs, store in maker.made:
            await jobs.close()
            await store.aclose()


def request(text: str = "hello", **changes: object) -> pb.SubmitJobRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
    return pb.SubmitJobRequest(task=task, **changes)  # type: ignore[arg-type]


async def ended(jobs: Jobs, job_id: str) -> pb.Job:
    async with asyncio.timeout(10):
        async for job in jobs.watch(job_id, ACME):
            last = job
    return last


async def test_a_job_is_accepted_served_and_shown(make: Make) -> None:
    jobs = make(Server())
    job = await jobs.submit(request(), ACME)
    assert job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING, pb.JOB_STATE_SUCCEEDED)
    done = await ended(jobs, job.id)
    assert (done.state, done.result.revision, done.attempts) == (pb.JOB_STATE_SUCCEEDED, "acme", 1)
    assert done.receipt.request_id == "r"
    assert done.ended_unix_ms >= done.submitted_unix_ms > 0


async def test_another_organisation_sees_nothing(make: Make) -> None:
    jobs = make(Server())
    job = await jobs.submit(request(), ACME)
    for act in (jobs.get, jobs.cancel):
        with pytest.raises(Fault) as caught:
            await act(job.id, Call(Principal("rival")))
        assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_the_same_token_is_the_same_job(make: Make) -> None:
    server = Server()
    jobs = make(server)
    first = await jobs.submit(request("once", idempotency_token="t"), ACME)
    again = await jobs.submit(request("once", idempotency_token="t"), ACME)
    other = await jobs.submit(request("once", idempotency_token="t"), Call(Principal("rival")))
    assert first.id == again.id != other.id
    await ended(jobs, first.id)


async def test_what_is_unavailable_is_tried_again_and_what_is_wrong_is_not(make: Make) -> None:
    server = Server()
    jobs = make(server)
    server.faults = [unavailable("later"), unavailable("later")]
    done = await ended(jobs, (await jobs.submit(request("a"), ACME)).id)
    assert (done.state, len(server.served)) == (pb.JOB_STATE_SUCCEEDED, 3)
    server.faults = [invalid("texts[0]", "is odd")]
    done = await ended(jobs, (await jobs.submit(request("b"), ACME)).id)
    assert (done.state, done.status.field) == (pb.JOB_STATE_FAILED, "texts[0]")


async def test_only_the_run_or_the_caller_cancels_a_job(make: Make) -> None:
    """Something on the way that goes down may say CANCELLED too: the job goes on."""
    server = Server()
    server.faults = [Fault(Reason.CANCELLED, "going down")]
    jobs = make(server)
    done = await ended(jobs, (await jobs.submit(request(), ACME)).id)
    assert (done.state, len(server.served)) == (pb.JOB_STATE_SUCCEEDED, 2)
    server.faults = [Fault(Reason.RUN_CANCELLED, "the run r was cancelled")]
    done = await ended(jobs, (await jobs.submit(request(), ACME)).id)
    assert (done.state, len(server.served)) == (pb.JOB_STATE_CANCELLED, 3)


async def test_a_job_ends_at_its_deadline(make: Make) -> None:
    server = Server()
    jobs = make(server)
    server.faults = [unavailable("no")] * 50
    done = await ended(jobs, (await jobs.submit(request(deadline_ms=250), ACME)).id)
    assert (done.state, done.status.code) == (
        pb.JOB_STATE_FAILED,
        grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
    )


async def test_cancelling_stops_the_work_wherever_it_runs(make: Make) -> None:
    server = Server()
    server.hang.clear()
    running, other = make(server), None
    job = await running.submit(request(), ACME)
    while not server.served:
        await asyncio.sleep(0.01)
    other = make(Server())
    cancelled = await other.cancel(job.id, ACME)
    assert cancelled.state == pb.JOB_STATE_CANCELLED
    await asyncio.wait_for(server.cancelled.wait(), 5)
    server.hang.set()
    assert (await other.cancel(job.id, ACME)).state == pb.JOB_STATE_CANCELLED
    assert await other.cancel_run("none", ACME) == 0


async def test_a_runs_jobs_are_cancelled_together(make: Make) -> None:
    server = Server()
    server.hang.clear()
    jobs = make(server)
    options = pb.CallOptions(run_id="r7")
    names = [
        (await jobs.submit(request(str(number), options=options), ACME)).id for number in range(3)
    ]
    assert await jobs.cancel_run("r7", ACME) == 3
    assert {(await jobs.get(name, ACME)).state for name in names} == {pb.JOB_STATE_CANCELLED}


async def test_a_router_that_goes_leaves_its_jobs_to_the_others(make: Make) -> None:
    stuck, healthy = Server(), Server()
    stuck.hang.clear()
    first = make(stuck)
    job = await first.submit(request(), ACME)
    while not stuck.served:
        await asyncio.sleep(0.01)
    second = make(healthy)
    await first.close()
    done = await ended(second, job.id)
    assert (done.state, done.attempts) == (pb.JOB_STATE_SUCCEEDED, 2)
    assert healthy.served == ["hello"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"deadline_ms": -1}, "deadline_ms"),
        ({"idempotency_token": "x" * 129}, "idempotency_token"),
        ({"callback_url": "http://hooks.example.com/x"}, "callback_url"),
        ({"callback_url": "https://elsewhere.example.com/"}, "callback_url"),
    ],
)
async def test_bad_input_names_its_field(
    make: Make, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(Fault) as caught:
        await make(Server()).submit(request(**changes), ACME)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_jobs_that_have_not_ended_are_bounded_by_key_and_by_organisation(make: Make) -> None:
    server = Server()
    server.hang.clear()
    jobs = make(server, open_jobs=3, open_jobs_of_key=2)
    other_key = Call(Principal("acme", key_id="k2"))
    names = [(await jobs.submit(request(str(number)), ACME)).id for number in range(2)]
    with pytest.raises(Fault, match="API key has 2 jobs") as refused:
        await jobs.submit(request(), ACME)
    assert refused.value.reason is Reason.TOO_MANY_JOBS
    await jobs.submit(request(), other_key)
    with pytest.raises(Fault, match="organisation has 3 jobs"):
        await jobs.submit(request(), other_key)
    await jobs.submit(request(), Call(Principal("rival", key_id="k1")))
    await jobs.cancel(names[0], ACME)
    await jobs.submit(request(), ACME)


async def test_what_is_kept_is_bounded_and_the_oldest_results_leave_first(make: Make) -> None:
    jobs, options, names = make(Server(), kept_jobs_mib=1), pb.CallOptions(run_id="r1"), []
    for number in range(3):
        one = request(idempotency_token=str(number), options=options)
        names.append((await jobs.submit(one, ACME)).id)
        await ended(jobs, names[-1])
    with pytest.raises(Fault, match="fill 1048576 bytes"):
        await jobs.submit(request("x" * 1_100_000), ACME)
    assert (await jobs.get(names[0], ACME)).state == pb.JOB_STATE_SUCCEEDED, "nothing was dropped"
    big = request("x" * (2**20 - 3 * 1_024), deadline_ms=60_000)  # leaves room for two results
    await jobs.submit(big, ACME)
    with pytest.raises(Fault) as gone:
        await jobs.get(names[0], ACME)
    assert gone.value.code is grpc.StatusCode.NOT_FOUND
    again = await jobs.submit(request(idempotency_token="0"), ACME)
    assert again.id != names[0], "its token is forgotten with it"


async def test_a_job_that_nobody_serves_is_forgotten_after_its_deadline(make: Make) -> None:
    jobs = make(Server(), is_started=False)
    job = await jobs.submit(request(deadline_ms=1_000), ACME)
    async with open_store(make.address) as store:
        left_ms = await store.pttl(f"penstock:{{jobs}}:job:{job.id}")
    assert KEEP_S * 1e3 < left_ms <= KEEP_S * 1e3 + 1_000


async def test_a_submission_that_is_sent_again_is_one_job(make: Make) -> None:
    """A client resends a command whose answer came too late."""
    jobs = make(Server(), is_started=False, store=Twice(make.address))
    await jobs.submit(request(), ACME)
    async with open_store(make.address) as store:
        assert await store.xlen("penstock:{jobs}:queue") == 1


async def _noted(states: AsyncIterator[pb.Job], seen: list[pb.Job]) -> AsyncIterator[pb.Job]:
    """The states, of which the first is also put into `seen`."""
    is_first = True
    async for state in states:
        if is_first:
            seen.append(state)
        is_first = False
        yield state


async def test_watchers_share_one_reader_and_are_bounded_by_key(make: Make) -> None:
    server = Server()
    server.hang.clear()
    counted = CountingStore(make.address)
    jobs = make(server, store=counted)
    job = await jobs.submit(request(), ACME)
    await eventually(lambda: bool(server.served))
    began: list[pb.Job] = []

    async def watch() -> pb.Job:
        states = [state async for state in _noted(jobs.watch(job.id, ACME), began)]
        return states[-1]

    watching = [asyncio.create_task(watch()) for _ in range(MAX_WATCHERS_OF_KEY)]
    await eventually(lambda: len(began) >= MAX_WATCHERS_OF_KEY)
    with pytest.raises(Fault) as refused:
        await ended(jobs, job.id)
    assert refused.value.reason is Reason.TOO_MANY_WATCHERS
    before = counted.whole_reads
    server.hang.set()
    assert {done.state for done in await asyncio.gather(*watching)} == {pb.JOB_STATE_SUCCEEDED}
    assert counted.whole_reads == before + 1
    await ended(jobs, job.id)
