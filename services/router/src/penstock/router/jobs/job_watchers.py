"""Who watches jobs at this router: all share one reader, which reads states and no more.

A watcher is woken when its job has changed. Only the end of a job is read whole, once for all who
watch it. How many watch is bounded, for each API key and in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.jobs.job_store import JobState, JobStore
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, not_found
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock
from penstock.service.work_stream import LOST

log = logging.getLogger(__name__)

RECHECK_S = 1.0
"""How often the states are read without a message, should one have been lost."""
STATES_AT_ONCE = 256
MAX_WATCHERS, MAX_WATCHERS_OF_KEY = 4_096, 64
ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})


@dataclass
class Watched:
    """A job that somebody watches."""

    seen: JobState | None
    """None: the job is no longer kept."""
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced at each change, so that all who wait for this one are woken."""
    ended: asyncio.Task[pb.Job | None] | None = None

    def update(self, state: JobState | None) -> None:
        """Take what was read, and wake the watchers if it is news."""
        if state != self.seen:
            self.seen = state
            self.changed.set()
            self.changed = asyncio.Event()


class JobWatchers:
    """The watchers of this router. Owner runs `read` for as long as it serves."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        max_watchers: int = MAX_WATCHERS,
        max_watchers_of_key: int = MAX_WATCHERS_OF_KEY,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_watchers = max_watchers
        self._max_watchers_of_key = max_watchers_of_key
        self._jobs: dict[str, Watched] = {}
        self._by_key: Counter[tuple[str, str]] = Counter()
        self._changed_ids: set[str] = set()
        self._is_changed = asyncio.Event()

    async def watch(self, job: pb.Job, call: Call) -> AsyncGenerator[pb.Job, None]:
        """A job as it is now, and again at each change until it has ended.

        Raises:
            Fault: too many watch; the job is no longer kept.
        """
        yield job
        if job.state in ENDED:
            return
        with self._counted(call), self._watched(job) as watched:
            shown: JobState | None = JobState(job.state, job.attempts)
            while True:
                changed = watched.changed
                if watched.seen == shown:
                    await changed.wait()
                shown = watched.seen
                if shown is None:
                    raise not_found("id", f"there is no job {job.id!r} any more")
                if shown.state in ENDED:
                    yield await self._ended(job.id, call, watched)
                    return
                state: pb.JobState = shown.state  # type: ignore[assignment] # of the store
                yield pb.Job(
                    id=job.id,
                    state=state,
                    attempts=shown.attempts,
                    submitted_unix_ms=job.submitted_unix_ms,
                )

    def tell(self, job_id: str) -> None:
        """A job has changed."""
        if job_id in self._jobs:
            self._changed_ids.add(job_id)
            self._is_changed.set()

    async def read(self) -> None:
        """Read the states of watched jobs, for ever: of those that have changed, and of all now and
        then.
        """
        loop = asyncio.get_running_loop()
        all_at_s = loop.time() + RECHECK_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(all_at_s if self._jobs else None):
                    await self._is_changed.wait()
            self._is_changed.clear()
            ids, self._changed_ids = list(self._changed_ids), set()
            if loop.time() >= all_at_s:
                ids, all_at_s = list(self._jobs), loop.time() + RECHECK_S
            try:
                await self._read_states(ids)
            except LOST:
                self._changed_ids.update(ids)
                await self._clock.sleep(RECHECK_S / 2)

    async def _read_states(self, ids: list[str]) -> None:
        for begin in range(0, len(ids), STATES_AT_ONCE):
            part = ids[begin : begin + STATES_AT_ONCE]
            for job_id, state in zip(part, await self._store.states(part), strict=True):
                watched = self._jobs.get(job_id)
                if watched is not None:
                    watched.update(state)

    async def _ended(self, job_id: str, call: Call, watched: Watched) -> pb.Job:
        """The ended job, read once for all who watch it; tenants were checked when they came."""
        if watched.ended is None:
            reading = self._store.read(job_id, call.principal.organisation)
            watched.ended = asyncio.create_task(reading, name="read an ended job")
        job = await asyncio.shield(watched.ended)
        if job is None:
            raise not_found("id", f"there is no job {job_id!r} any more")
        return job

    @contextlib.contextmanager
    def _counted(self, call: Call) -> Iterator[None]:
        key = (call.principal.organisation, call.principal.key_id)
        if self._by_key.total() >= self._max_watchers:
            raise _refusal(f"this router has {self._max_watchers} watchers of jobs")
        if self._by_key[key] >= self._max_watchers_of_key:
            raise _refusal(f"this API key watches {self._max_watchers_of_key} jobs here already")
        self._by_key[key] += 1
        try:
            yield
        finally:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]

    @contextlib.contextmanager
    def _watched(self, job: pb.Job) -> Iterator[Watched]:
        watched = self._jobs.setdefault(job.id, Watched(JobState(job.state, job.attempts)))
        watched.watchers += 1
        self.tell(job.id)  # it may have changed since the job was read
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._jobs[job.id]


def _refusal(why: str) -> Fault:
    return Fault(Reason.TOO_MANY_WATCHERS, f"{why}; end one, or ask with GetJob", retry_after_s=1.0)
