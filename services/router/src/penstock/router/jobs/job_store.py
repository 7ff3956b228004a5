"""Jobs as the store keeps them; `job_scripts.py` has what each change does."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import redis.asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.jobs.job_scripts import (
    BEGIN,
    END,
    KNOWN,
    SUBMIT,
    SUPERSEDED,
    TOO_LARGE,
    TOO_MANY,
    TOO_MANY_OF_KEY,
)
from penstock.rpc.call import Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.durability import Fsyncs
from penstock.service.work_stream import TakenOver

TAG = "penstock:{jobs}:"
"""All keys of jobs are of one hash tag: one script touches the queue, which organisations share,
and what an organisation keeps.
"""
PREFIX = f"{TAG}job:"
STREAM = f"{TAG}queue"
CALLBACKS = f"{TAG}callbacks"
CHANGED = "penstock:jobs:changed"
KEEP_S = 24 * 3600
"""How long an ended job can be asked for, and one that nobody has ended after its deadline."""


@dataclass(frozen=True)
class JobLimits:
    """How much may be kept for an organisation.

    Args:
        open_jobs, open_jobs_of_key: jobs that have not ended, of the organisation and of one key.
        kept_bytes: requests of open jobs and results of ended ones; the results that were kept
            longest leave first.
    """

    open_jobs: int = 10_000
    open_jobs_of_key: int = 2_000
    kept_bytes: int = 256 * 2**20


class JobState(NamedTuple):
    """What changes of a job until it ends."""

    state: int
    attempts: int


@dataclass(frozen=True)
class Taken:
    """A job that has been taken to be served; `attempts` is its fence."""

    id: str
    request: pb.SubmitJobRequest
    principal: Principal
    priority: int
    attempts: int
    left_s: float


class JobStore:
    """The store with the scripts. Raises redis' own errors; `jobs` turns them into words."""

    def __init__(self, store: redis.asyncio.Redis, limits: JobLimits = JobLimits()) -> None:
        self._store = store
        self._limits = limits
        self._fsyncs = Fsyncs(store)
        self._is_known = False

    async def close(self) -> None:
        """Stop waiting for the store's disk."""
        await self._fsyncs.close()

    async def submit(
        self, request: pb.SubmitJobRequest, principal: Principal, priority: int, deadline_ms: int
    ) -> tuple[str, bool]:
        """Keep a job and queue it, on the store's disk; gives its id, and False where the same
        token has been used before.

        Raises:
            Fault: TOO_MANY_JOBS.
        """
        job_id = secrets.token_hex(16)
        owner, run_id = principal.organisation, request.options.run_id
        token = f"{TAG}token:{_in_key(owner)}:{_in_key(request.idempotency_token)}"
        keys = [PREFIX + job_id, STREAM, token, _run_key(owner, run_id)]
        given: list[str | bytes | int] = [
            job_id,
            request.SerializeToString(),
            _packed(principal),
            owner,
            _in_key(principal.key_id),
            request.callback_url,
            priority,
            deadline_ms,
            KEEP_S,
            int(bool(request.idempotency_token)),
            int(bool(run_id)),
            self._limits.open_jobs,
            self._limits.open_jobs_of_key,
            self._limits.kept_bytes,
            f"{TAG}of:{_in_key(owner)}:",
        ]
        reply, name = await self._store.eval(SUBMIT, len(keys), *keys, *given)
        if reply > KNOWN:
            raise self._refusal(reply)
        await self._synced()
        return name.decode(), reply != KNOWN

    async def read(self, job_id: str, organisation: str) -> pb.Job | None:
        """A job of this organisation; None where there is none."""
        row = await self._row(job_id)
        if not row or row[b"organisation"].decode() != organisation:
            return None
        return _job(job_id, row)

    async def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """What has changed of jobs; None for one that is no longer kept."""
        pipe = self._store.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hmget(PREFIX + job_id, "state", "attempts")
        rows = await pipe.execute()
        return [JobState(int(row[0]), int(row[1])) if row[0] else None for row in rows]

    async def _row(self, job_id: str) -> dict[bytes, bytes]:
        return cast(dict[bytes, bytes], await self._store.hgetall(PREFIX + job_id))

    async def callback(self, job_id: str) -> tuple[str, str, pb.Job] | None:
        """Whose an ended job is, where it is to be told, and the job."""
        row = await self._row(job_id)
        if not row:
            return None
        return row[b"organisation"].decode(), row[b"callback"].decode(), _job(job_id, row)

    async def begin(self, job_id: str) -> Taken | None:
        """Take a job to be served; None where it has ended or is no longer kept."""
        begun = await self._store.eval(BEGIN, 1, PREFIX + job_id, CHANGED, job_id)
        row = await self._row(job_id) if begun else {}
        if b"request" not in row:
            return None
        who = common_pb2.Principal.FromString(row[b"principal"])
        return Taken(
            job_id,
            pb.SubmitJobRequest.FromString(row[b"request"]),
            Principal(who.organisation, who.team, who.user, who.key_id, tuple(who.tags)),
            int(row[b"priority"]),
            int(begun[0]),
            (int(row[b"deadline"]) - int(begun[1])) / 1e3,
        )

    async def end(self, job_id: str, outcome: pb.Job, attempt: int | None) -> bool:
        """End a job; False where it had ended before.

        Args:
            attempt: which attempt ends it; None: its caller does, whichever runs.

        Raises:
            TakenOver: a later attempt has begun.
        """
        given: list[str | bytes | int] = [
            CHANGED,
            job_id,
            int(outcome.state),
            outcome.SerializeToString(),
            KEEP_S,
            "" if attempt is None else attempt,
            self._limits.kept_bytes,
        ]
        done = await self._store.eval(END, 2, PREFIX + job_id, CALLBACKS, *given)
        if done == SUPERSEDED:
            raise TakenOver
        return bool(done)

    async def of_run(self, organisation: str, run_id: str) -> list[str]:
        """Jobs that belong to an agent run."""
        names = cast(set[bytes], await self._store.smembers(_run_key(organisation, run_id)))
        return sorted(name.decode() for name in names)

    async def _synced(self) -> None:
        if not self._is_known:
            await self._fsyncs.learn()
            self._is_known = True
        await self._fsyncs.wait()

    def _refusal(self, reply: int) -> Fault:
        limits = self._limits
        why = {
            TOO_MANY: f"the organisation has {limits.open_jobs} jobs that have not ended",
            TOO_MANY_OF_KEY: f"the API key has {limits.open_jobs_of_key} jobs that have not ended",
            TOO_LARGE: f"open jobs of the organisation fill {limits.kept_bytes} bytes",
        }[reply]
        return Fault(Reason.TOO_MANY_JOBS, f"{why}; submit again when some have", retry_after_s=1.0)


def _packed(principal: Principal) -> bytes:
    who = common_pb2.Principal(
        organisation=principal.organisation,
        team=principal.team,
        user=principal.user,
        key_id=principal.key_id,
        tags=principal.tags,
    )
    return who.SerializeToString()


def _run_key(organisation: str, run_id: str) -> str:
    return f"{TAG}run:{_in_key(organisation)}:{_in_key(run_id)}"


def _in_key(name: str) -> str:
    return quote(name, safe="")


def _job(job_id: str, row: Mapping[bytes, bytes]) -> pb.Job:
    job = pb.Job.FromString(row.get(b"outcome", b""))
    state: Any = int(row[b"state"])
    job.id, job.state, job.attempts = job_id, state, int(row[b"attempts"])
    job.submitted_unix_ms, job.ended_unix_ms = int(row[b"submitted"]), int(row.get(b"ended", b"0"))
    return job
