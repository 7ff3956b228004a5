"""Jobs as Redis keeps them.

Each change is one script, so a job ends once, whoever tries and however often.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.call import Principal

PREFIX = "penstock:job:"
STREAM = "penstock:jobs"
CALLBACKS = "penstock:job-callbacks"
CHANGED = "penstock:jobs:changed"
KEEP_S = 24 * 3600
"""How long an ended job can be asked for."""

# KEYS: job, stream, token, run. ARGV: id, request, principal, organisation, priority, deadline in
# ms, keep in s
SUBMIT = """
local known = redis.call('GET', KEYS[3])
if ARGV[8] ~= '' and known then return {0, known} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'request', ARGV[2], 'principal', ARGV[3], 'organisation', ARGV[4],
  'priority', ARGV[5], 'state', 1, 'submitted', now, 'deadline', now + ARGV[6], 'attempts', 0)
redis.call('XADD', KEYS[2], '*', 'id', ARGV[1])
if ARGV[8] ~= '' then redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[7]) end
if ARGV[9] ~= '' then
  redis.call('SADD', KEYS[4], ARGV[1])
  redis.call('EXPIRE', KEYS[4], ARGV[7])
end
return {1, ARGV[1]}
"""

# KEYS: job. Marks it running and counts the attempt; nothing when it is not there or has ended.
BEGIN = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= '1' and state ~= '2' then return {} end
redis.call('HSET', KEYS[1], 'state', 2)
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('PUBLISH', ARGV[1], ARGV[2])
local t = redis.call('TIME')
return {1, tostring(t[1] * 1000 + math.floor(t[2] / 1000))}
"""

# KEYS: job, callbacks. ARGV: channel, id, state, outcome, keep in s, callback wanted
END = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= '1' and state ~= '2' then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'outcome', ARGV[4], 'ended', now)
redis.call('HINCRBY', KEYS[1], 'ends', 1)
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[1], ARGV[2])
if ARGV[6] == '1' then redis.call('XADD', KEYS[2], '*', 'id', ARGV[2]) end
return 1
"""


@dataclass(frozen=True)
class Taken:
    """A job that has been taken to be served."""

    request: pb.SubmitJobRequest
    principal: Principal
    priority: int
    attempts: int
    left_s: float


class JobStore:
    """Redis with the scripts. Raises redis' own errors; `jobs` turns them into words."""

    def __init__(self, store: redis.asyncio.Redis) -> None:
        self._store = store

    async def submit(
        self, request: pb.SubmitJobRequest, principal: Principal, priority: int, deadline_ms: int
    ) -> tuple[str, bool]:
        """Keep a job and queue it, in one step; gives its id, and False where the same token has
        been used before.
        """
        job_id = secrets.token_hex(16)
        owner = principal.organisation
        who = common_pb2.Principal(
            organisation=owner,
            team=principal.team,
            user=principal.user,
            key_id=principal.key_id,
            tags=principal.tags,
        )
        token = f"penstock:job-token:{owner}:{request.idempotency_token}"
        keys = [PREFIX + job_id, STREAM, token, _run_key(owner, request.options.run_id)]
        given: list[str | bytes | int] = [
            job_id,
            request.SerializeToString(),
            who.SerializeToString(),
            owner,
            priority,
            deadline_ms,
            KEEP_S,
            request.idempotency_token,
            request.options.run_id,
        ]
        fresh, name = await self._store.eval(SUBMIT, len(keys), *keys, *given)
        return name.decode(), bool(fresh)

    async def read(self, job_id: str, organisation: str) -> pb.Job | None:
        """A job of this organisation; None where there is none."""
        row = await self._row(job_id)
        if not row or row[b"organisation"].decode() != organisation:
            return None
        return _job(job_id, row)

    async def _row(self, job_id: str) -> dict[bytes, bytes]:
        return cast(dict[bytes, bytes], await self._store.hgetall(PREFIX + job_id))

    async def callback(self, job_id: str) -> tuple[str, pb.Job] | None:
        """Where an ended job is to be told, and the job."""
        row = await self._row(job_id)
        if not row:
            return None
        return pb.SubmitJobRequest.FromString(row[b"request"]).callback_url, _job(job_id, row)

    async def begin(self, job_id: str) -> Taken | None:
        """Take a job to be served; None where it has ended."""
        begun = await self._store.eval(BEGIN, 1, PREFIX + job_id, CHANGED, job_id)
        if not begun:
            return None
        row = await self._row(job_id)
        who = common_pb2.Principal.FromString(row[b"principal"])
        return Taken(
            pb.SubmitJobRequest.FromString(row[b"request"]),
            Principal(who.organisation, who.team, who.user, who.key_id, tuple(who.tags)),
            int(row[b"priority"]),
            int(row[b"attempts"]),
            (int(row[b"deadline"]) - int(begun[1])) / 1e3,
        )

    async def end(self, job_id: str, outcome: pb.Job, callback: bool) -> bool:
        """End a job; True for the one who ended it, False where it had ended before."""
        packed = outcome.SerializeToString()
        done = await self._store.eval(
            END,
            2,
            PREFIX + job_id,
            CALLBACKS,
            CHANGED,
            job_id,
            int(outcome.state),
            packed,
            KEEP_S,
            int(callback),
        )
        return bool(done)

    async def of_run(self, organisation: str, run_id: str) -> list[str]:
        """Jobs that belong to an agent run."""
        names = cast(set[bytes], await self._store.smembers(_run_key(organisation, run_id)))
        return sorted(name.decode() for name in names)


def _run_key(organisation: str, run_id: str) -> str:
    return f"penstock:run-jobs:{organisation}:{run_id}"


def _job(job_id: str, row: Mapping[bytes, bytes]) -> pb.Job:
    job = pb.Job.FromString(row.get(b"outcome", b""))
    state: Any = int(row[b"state"])
    job.id, job.state, job.attempts = job_id, state, int(row[b"attempts"])
    job.submitted_unix_ms, job.ended_unix_ms = int(row[b"submitted"]), int(row.get(b"ended", b"0"))
    return job
