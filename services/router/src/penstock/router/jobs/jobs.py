"""Work for callers that do not wait: kept in the store, served by any router.

What holds of a job whatever is killed or stalls stands in `docs/decisions/0094-jobs.md`: accepted
once, run at least once, charged once, ended once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

import redis.asyncio
from google.protobuf import json_format
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.state import Outcome
from penstock.router.jobs import callbacks
from penstock.router.jobs.job_store import (
    CALLBACKS,
    CHANGED,
    PREFIX,
    STREAM,
    JobLimits,
    JobStore,
    Taken,
)
from penstock.router.jobs.job_watchers import ENDED, JobWatchers
from penstock.router.requests.resolved import JobTry
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import (
    Fault,
    deadline_exceeded,
    invalid,
    not_found,
    to_fault,
    to_item_status,
    unavailable,
)
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock
from penstock.service.work_stream import LOST, WorkStream, stop

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000
MAX_DEADLINE_MS = 7 * 24 * HOUR_MS
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
MODEL_WAIT_S = 60.0
"""How long a job waits for a model that nobody serves: instances may still be starting."""
TRIES_PER_ATTEMPT = 1_000_000
"""Fences of one attempt; above the tries that fit into the longest deadline."""
CALLBACK_TRIES = 6
LISTEN_S = 10.0
"""Longest wait for news of jobs; a connection that breaks is noticed at once."""

Serve = Callable[[pb.SubmitJobRequest, Call, JobTry], Awaitable[Outcome]]
"""Serves a try of a job's task as a call would be, and settles it; raises Fault."""
Post = Callable[[str, bytes, str], Awaitable[int]]
"""Sends a body with its signature to an address and gives the HTTP status; raises OSError where
there is none.
"""


class Jobs:
    """Takes, shows, cancels and serves jobs. Owner must `close` it."""

    def __init__(
        self,
        settings: RouterSettings,
        store: redis.asyncio.Redis,
        serve: Serve,
        clock: Clock,
        post: Post | None = None,
    ) -> None:
        self._post = post or callbacks.HttpsPost()
        self._settings = settings
        self._redis = store
        limits = JobLimits(
            settings.open_jobs, settings.open_jobs_of_key, settings.kept_jobs_mib * 2**20
        )
        self._store = JobStore(store, limits)
        self._serve_call = serve
        self._clock = clock
        self._streams = (
            WorkStream(
                store,
                STREAM,
                self._handle,
                clock,
                slots=settings.job_slots,
                lease_ms=settings.job_lease_ms,
            ),
            WorkStream(store, CALLBACKS, self._send_callback, clock, slots=8, lease_ms=60_000),
        )
        self._running: dict[str, asyncio.Task[object]] = {}
        self._cancelled: set[str] = set()
        self._watchers = JobWatchers(self._store, clock)
        self._listeners: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to serve jobs."""
        loop = asyncio.get_running_loop()
        self._listeners = [
            loop.create_task(self._listen(), name="job changes"),
            loop.create_task(self._watchers.read(), name="job states"),
        ]
        for stream in self._streams:
            stream.start()

    async def close(self) -> None:
        """Stop; what runs here goes on at another router."""
        for stream in self._streams:
            await stream.close()
        await stop(self._listeners)
        await self._store.close()

    async def submit(self, request: pb.SubmitJobRequest, call: Call) -> pb.Job:
        """Keep a job; when this returns, no crash loses it."""
        if not 0 <= request.deadline_ms <= MAX_DEADLINE_MS:
            raise invalid("deadline_ms", f"must lie between 0 and {MAX_DEADLINE_MS}")
        if len(request.idempotency_token.encode()) > 128:
            raise invalid("idempotency_token", "is longer than 128 bytes")
        if request.callback_url:
            if not self._settings.callback_secret:
                raise invalid(
                    "callback_url",
                    "this router sends no callbacks; PENSTOCK_CALLBACK_SECRET is not set",
                )
            if why := callbacks.refused_because(
                request.callback_url, self._settings.callback_hosts
            ):
                raise invalid("callback_url", why)
        with _store_faults():
            job_id, _ = await self._store.submit(
                request, call.principal, call.priority, request.deadline_ms or HOUR_MS
            )
        return await self.get(job_id, call)

    async def get(self, job_id: str, call: Call) -> pb.Job:
        """A job of the caller's organisation."""
        if not job_id:
            raise invalid("id", "is empty")
        with _store_faults():
            job = await self._store.read(job_id, call.principal.organisation)
        if job is None:
            raise not_found("id", f"there is no job {job_id!r}")
        return job

    async def watch(self, job_id: str, call: Call) -> AsyncGenerator[pb.Job, None]:
        """The job now, and again at each change until it has ended."""
        job = await self.get(job_id, call)
        with _store_faults():
            async with contextlib.aclosing(self._watchers.watch(job, call)) as states:
                async for state in states:
                    yield state

    async def cancel(self, job_id: str, call: Call) -> pb.Job:
        """End a job as cancelled, wherever it runs; one that has ended stays as it is."""
        job = await self.get(job_id, call)
        if job.state not in ENDED:
            with _store_faults():
                await self._store.end(job_id, pb.Job(state=pb.JOB_STATE_CANCELLED), attempt=None)
            job = await self.get(job_id, call)
        return job

    async def cancel_run(self, run_id: str, call: Call) -> int:
        """Cancel every job of an agent run; gives how many had not ended."""
        with _store_faults():
            names = await self._store.of_run(call.principal.organisation, run_id)
        count = 0
        for name in names:
            with contextlib.suppress(Fault):
                before = (await self.get(name, call)).state
                after = (await self.cancel(name, call)).state
                count += before not in ENDED and after == pb.JOB_STATE_CANCELLED
        return count

    async def _handle(self, job_id: str) -> None:
        """Serve a job to its end.

        Cancelled from outside it stays pending; cancelled by its caller it has ended already.

        Raises:
            TakenOver: another router has begun a later attempt.
        """
        taken = await self._store.begin(job_id)
        if taken is None:
            return
        task = asyncio.current_task()
        assert task is not None
        self._running[job_id] = task
        try:
            outcome = await self._outcome(taken)
            await self._store.end(job_id, outcome, taken.attempts)
        except asyncio.CancelledError:
            if job_id not in self._cancelled:
                raise
            task.uncancel()
        finally:
            self._cancelled.discard(job_id)
            self._running.pop(job_id, None)

    async def _outcome(self, taken: Taken) -> pb.Job:
        deadline_s = self._clock.monotonic() + taken.left_s
        call = Call(
            taken.principal,
            taken.priority,
            taken.request.options.run_id,
            taken.request.options.step,
            deadline_s,
        )
        pause_s, began = MIN_PAUSE_S, self._clock.monotonic()
        fence = taken.attempts * TRIES_PER_ATTEMPT
        try:
            if taken.attempts > self._settings.job_attempts:
                raise unavailable(
                    f"given up after {taken.attempts - 1} attempts",
                    reason=Reason.ATTEMPTS_EXHAUSTED,
                )
            while call.remaining_s(self._clock.monotonic()) > 0:
                fence += 1
                try:
                    done = await self._serve_call(taken.request, call, JobTry(taken.id, fence))
                    return pb.Job(
                        state=pb.JOB_STATE_SUCCEEDED, result=done.result, receipt=done.receipt
                    )
                except Fault as fault:
                    if not _may_pass(fault, self._clock.monotonic() - began):
                        raise
                    await self._clock.sleep(min(max(pause_s, fault.retry_after_s), MAX_PAUSE_S))
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
            raise deadline_exceeded("the job's deadline has passed")
        except Exception as error:
            if isinstance(error, Fault) and error.reason is Reason.RUN_CANCELLED:
                return pb.Job(state=pb.JOB_STATE_CANCELLED)
            return pb.Job(state=pb.JOB_STATE_FAILED, status=to_item_status(to_fault(error)))

    async def _send_callback(self, job_id: str) -> None:
        """Send an ended job to its callback address, again with back-off until it is taken or given
        up.
        """
        found = await self._store.callback(job_id)
        if found is None:
            return
        organisation, url, job = found
        secret = callbacks.secret_of(self._settings.callback_secret, organisation)
        body = json_format.MessageToJson(job, indent=None).encode()
        for number in range(CALLBACK_TRIES):
            try:
                signature = callbacks.sign(secret, int(self._clock.time()), body)
                status = await self._post(url, body, signature)
                if 200 <= status < 300 or status in (400, 401, 403, 404, 410):
                    return
            except (OSError, TimeoutError):
                pass
            await self._clock.sleep(2.0**number)
        log.warning("job %s: the callback was given up after %d tries", job_id, CALLBACK_TRIES)

    async def _listen(self) -> None:
        """Hear of changes: wake watchers, and stop what its caller has cancelled."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(CHANGED)
                    while True:
                        message = await channel.get_message(
                            ignore_subscribe_messages=True, timeout=LISTEN_S
                        )
                        if message is not None:
                            await self._on_change(message["data"].decode())
            except LOST:
                await self._clock.sleep(0.5)

    async def _on_change(self, job_id: str) -> None:
        self._watchers.tell(job_id)
        task = self._running.get(job_id)
        if task is None:
            return
        state = await self._redis.hget(PREFIX + job_id, "state")
        if (
            state is not None
            and int(state) == pb.JOB_STATE_CANCELLED
            and self._running.get(job_id) is task
        ):
            self._cancelled.add(job_id)
            task.cancel()


def _may_pass(fault: Fault, waited_s: float) -> bool:
    """Whether waiting may mend it: nobody free now, or a fleet that is still starting."""
    if fault.reason is Reason.NO_MODEL and waited_s >= MODEL_WAIT_S:
        return False
    return fault.consequences.later


@contextlib.contextmanager
def _store_faults() -> Iterator[None]:
    try:
        yield
    except LOST:
        raise unavailable(
            "jobs need a store, and it does not answer", retry_after_s=1.0, reason=Reason.NO_STORE
        ) from None
