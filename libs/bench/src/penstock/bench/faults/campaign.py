"""Kills (SIGKILL) and stops (SIGSTOP) of limiter, routers and the ledger's store under load, and
what the ledger says afterwards against what callers were told.

Three tenants call at the same time:

- `steady` has a budget that is never reached. What its answered calls cost must be in the ledger:
  what is missing is **lost**. (What a killed router held counts as spent, so the ledger may say
  more, by its leases.)
- `tight` has a budget that is soon reached. What its answered calls cost beyond the limit is
  **overshoot**.
- `jobs` submits jobs. Each that was accepted must end once and well; otherwise it is **lost**. The
  ledger must say exactly what the receipts of the ended jobs say: more is **double charged**, less
  is **lost**.

A round is a fresh set of services and some faults, which overlap, but for those of the store: what
a router spent that dies together with the store may be lost, within the bound that decision 0093
states. A round's line is appended to a log; the figures are
the sums of all lines, so a campaign can be stopped and gone on with.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.faults.all_kinds import REQUESTS, TEXT
from penstock.bench.faults.overlapping import Faults
from penstock.bench.faults.rig import HOLD_MS, LEASE_MS, MODEL, ROUTERS, TOKEN, Rig, running
from penstock.bench.harness import json_lines
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import connect
from penstock.service.clock import SystemClock
from penstock.service.store import open_store
from penstock.simulation.runs import token_budget

LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
TENANTS = ("steady", "tight", "jobs")
TIGHT_TOKENS_PER_FAULT = 800
"""So that the budget is reached within a round, and not at its beginning."""
FAULTS_IN_ROUND = 100
STEADY_CALLERS, TIGHT_CALLERS, JOB_CALLERS = 6, 3, 2
TIMEOUT_S, PAUSE_S = 10.0, 0.03
SETTLED_S = (HOLD_MS + 2 * LEASE_MS) / 1e3 + 10.0
"""After this nothing of a killed process is held any more."""
STORE_WAIT_S = 60.0
"""How long a store that is slow on a busy machine is waited for when a round is judged."""


def _rules(tight_tokens: int) -> list[dict[str, object]]:
    limits = {"steady": 10**12, "tight": tight_tokens, "jobs": 10**12}
    return [token_budget(tenant, limits[tenant]) for tenant in TENANTS]


@dataclass
class Round:
    """One round: its faults, what callers were told, and what was wrong."""

    seed: int
    kills: int = 0
    stops: int = 0
    answered: int = 0
    failed: int = 0
    jobs: int = 0
    lost: int = 0
    double_charged: int = 0
    overshoot: int = 0
    ledger_differs: int = 0
    wrong: list[str] = field(default_factory=list)
    """What was wrong, in words."""
    at: str = ""

    def note(self, figure: str, amount: int, what: str) -> None:
        """Count something that is wrong, if it is above 0."""
        if amount > 0:
            setattr(self, figure, getattr(self, figure) + amount)
            self.wrong.append(f"{figure} {amount}: {what}")


@dataclass
class Told:
    """What callers were told: tokens of answered calls by tenant, and accepted jobs by token."""

    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))
    jobs: dict[str, str] = field(default_factory=dict)


def append_round(log: Path, one: Round) -> None:
    """Append a round's line to the log."""
    one.at = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    json_lines.append(log, asdict(one))


def rounds_in(log: Path) -> list[Round]:
    """The rounds of a log, the oldest first; none where there is no log."""
    return json_lines.records(log, Round)


async def play(folder: Path, seed: int, faults: int) -> Round:
    """One round."""
    result, told = Round(seed), Told()
    tight_tokens = TIGHT_TOKENS_PER_FAULT * faults
    async with running(folder, TENANTS, _rules(tight_tokens)) as rig:
        is_over = asyncio.Event()
        numbers = itertools.count()

        async def repeat(work: Callable[[Rig, Told, Round, int], Awaitable[None]]) -> None:
            while not is_over.is_set():
                await work(rig, told, result, next(numbers))
                await asyncio.sleep(PAUSE_S)

        callers = [asyncio.create_task(repeat(_call_steady)) for _ in range(STEADY_CALLERS)]
        callers += [asyncio.create_task(repeat(_call_tight)) for _ in range(TIGHT_CALLERS)]
        callers += [asyncio.create_task(repeat(_submit)) for _ in range(JOB_CALLERS)]
        await asyncio.sleep(1.0)
        result.kills, result.stops = await Faults(rig).inflict(faults, Random(seed))
        is_over.set()
        await asyncio.gather(*callers)
        result.jobs = len(told.jobs)
        charged = await _jobs_charged(rig, told, result)
        await asyncio.sleep(SETTLED_S)
        await _compare(rig, told, charged, tight_tokens, result)
    return result


async def _call_steady(rig: Rig, told: Told, result: Round, number: int) -> None:
    await _call("steady", rig, told, result, number)


async def _call_tight(rig: Rig, told: Told, result: Round, number: int) -> None:
    await _call("tight", rig, told, result, number)


async def _call(tenant: str, rig: Rig, told: Told, result: Round, number: int) -> None:
    method, build = list(REQUESTS.items())[number % len(REQUESTS)]
    stub = rig.routers[ROUTERS[number % len(ROUTERS)]]
    request = build(f"{TEXT} {number}", router_pb2.CallOptions(model=MODEL))
    try:
        answer = await getattr(stub, method)(
            request, metadata=rig.metadata(tenant), timeout=TIMEOUT_S
        )
    except grpc.aio.AioRpcError:
        result.failed += 1
        return
    result.answered += 1
    usage = answer.receipt.usage
    told.tokens[tenant] += usage.input_tokens + usage.output_tokens


async def _submit(rig: Rig, told: Told, _: Round, number: int) -> None:
    """Submit a job, again and again under its token until a router accepts it."""
    token = f"job-{number}"
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=f"{TEXT} {number}")
    task = inference_pb2.Task(
        generate=inference_pb2.GenerateTask(messages=[message], max_tokens=16)
    )
    request = router_pb2.SubmitJobRequest(
        task=task, idempotency_token=token, options=router_pb2.CallOptions(model=MODEL)
    )
    for turn in itertools.count(number):
        stub = rig.routers[ROUTERS[turn % len(ROUTERS)]]
        try:
            answer = await stub.SubmitJob(request, metadata=rig.metadata("jobs"), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(PAUSE_S)
            continue
        told.jobs[token] = answer.job.id
        return


async def _jobs_charged(rig: Rig, told: Told, result: Round) -> int:
    """Tokens that the receipts of the accepted jobs say; waits until all have ended."""
    charged = 0
    for token, job_id in told.jobs.items():
        job = await _ended(rig, job_id)
        if job is None or job.state != router_pb2.JOB_STATE_SUCCEEDED:
            state = "gone" if job is None else f"{job.state} {job.status.message}"
            result.note("lost", 1, f"{token} {job_id} is {state}")
            continue
        usage = job.receipt.usage
        charged += usage.input_tokens + usage.output_tokens
    return charged


async def _ended(rig: Rig, job_id: str) -> router_pb2.Job | None:
    """A job when it has ended, or after a minute as it is; None where it is not known."""
    stub = rig.routers[ROUTERS[0]]
    job: router_pb2.Job | None = None
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 60.0
    while loop.time() < end_s:
        try:
            answer = await stub.GetJob(
                router_pb2.GetJobRequest(id=job_id), metadata=rig.metadata("jobs"), timeout=5.0
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
        else:
            job = router_pb2.Job()
            job.CopyFrom(answer.job)
            if job.ended_unix_ms:
                return job
        await asyncio.sleep(0.2)
    return job


async def _compare(rig: Rig, told: Told, charged: int, tight_tokens: int, result: Round) -> None:
    """Compare the ledger with what callers were told, and with itself."""
    committed = {tenant: await _committed(rig, tenant) for tenant in TENANTS}
    spent = told.tokens
    result.note("lost", spent["steady"] - committed["steady"], "tokens of answered calls")
    result.note("lost", spent["tight"] - committed["tight"], "tokens of answered tight calls")
    result.note("overshoot", spent["tight"] - tight_tokens, "tokens answered beyond the limit")
    result.note("overshoot", committed["tight"] - tight_tokens, "tokens booked beyond the limit")
    result.note("lost", charged - committed["jobs"], "tokens of ended jobs")
    result.note("double_charged", committed["jobs"] - charged, "tokens beyond those of ended jobs")
    client = open_store(rig.store_url)
    store = LedgerStore(client, SystemClock())
    for tenant in TENANTS:
        _, differing = await store.verify(tenant, STORE_WAIT_S)
        result.note("ledger_differs", len(differing), ", ".join(differing))
    await store.close()


async def _committed(rig: Rig, tenant: str) -> int:
    """Tokens that a tenant's budget has committed and holds."""
    peer = connect(rig.limiter_address, LIMITER, token=TOKEN)
    caller = Call(Principal(tenant, key_id=tenant))
    try:
        for _ in range(20):
            try:
                usage: limiter_pb2.GetUsageResponse = await peer.call(
                    "GetUsage", limiter_pb2.GetUsageRequest(model=MODEL), caller
                )
            except Fault:
                await asyncio.sleep(0.5)
                continue
            (rule,) = usage.rules
            return rule.committed.tokens + rule.held.tokens
        raise RuntimeError("the limiter does not answer after the round")
    finally:
        await peer.close()
