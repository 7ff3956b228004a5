"""The callers of the simulation, and what each of their calls came to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.simulation.system import MODEL, ROUTER, ROUTERS, System

TENANTS = ("steady", "tight", "other")
JOB_TENANT = "jobs"
TEXTS = tuple(f"the quick brown fox jumps over the lazy dog number {n} and goes on" for n in (1, 2))
"""Few, and the same for all tenants, so that requests meet in caches and in flight."""
MAX_TOKENS = 16
GIVEN_S = (0.3, 1.0, 3.0)
"""Deadlines that callers set."""


@dataclass(frozen=True)
class Ended:
    """How a call ended: `OK`, a status code, or `left` where the caller hung up.

    `number` is that of the computation which the answer carries, 0 for none; `tokens` are those
    that the receipt charges. `is_kept`: a cache had kept it. (Who follows a call in flight
    gets what that call gets, whatever its end.)
    """

    tenant: str
    text: str
    status: str
    took_s: float
    given_s: float
    number: int = 0
    tokens: int = 0
    is_kept: bool = False
    has_own_text: bool = True


@dataclass
class Told:
    """What callers were told."""

    calls: list[Ended] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    """Accepted jobs: id by token."""
    job_texts: list[str] = field(default_factory=list)
    """What was asked of jobs that were submitted."""


async def keep_calling(system: System, tenant: str, number: int, calls: int, told: Told) -> None:
    """Make some calls one after the other."""
    rng = system.plan.rng(f"caller {number}")
    for turn in range(calls):
        await asyncio.sleep(rng.expovariate(1 / 0.15))
        told.calls.append(await _one_call(system, tenant, f"caller {number}.{turn}", rng))


async def _one_call(system: System, tenant: str, name: str, rng: Random) -> Ended:
    text, given_s = rng.choice(TEXTS), rng.choice(GIVEN_S)
    streams = rng.random() < 0.4
    router = rng.choice(ROUTERS)
    options = router_pb2.CallOptions(model=MODEL)
    priority: Any = rng.choice((0, common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_HIGH))
    options.priority = priority
    began_s = system.clock.monotonic()
    work = asyncio.ensure_future(
        _answer(system, router, tenant, text, options, began_s + given_s, streams)
    )
    drawn = system.plan.draw(name, ("cancel",))
    leaves_s = drawn.seconds if drawn.kind else None
    done, _ = await asyncio.wait((work,), timeout=leaves_s)
    if not done:
        work.cancel()
        await asyncio.wait((work,))
    took_s = system.clock.monotonic() - began_s
    if work.cancelled():
        return Ended(tenant, text, "left", took_s, given_s)
    error = work.exception()
    if isinstance(error, Fault):
        return Ended(tenant, text, error.code.name, took_s, given_s)
    content, receipt = work.result()
    first, _, rest = content.partition("|")
    is_kept = receipt.cache.outcome == common_pb2.CACHE_OUTCOME_EXACT_HIT
    usage = receipt.usage
    tokens = usage.input_tokens + usage.output_tokens
    return Ended(
        tenant, text, "OK", took_s, given_s, int(first or 0), tokens, is_kept, rest == text
    )


async def _answer(
    system: System,
    router: str,
    tenant: str,
    text: str,
    options: router_pb2.CallOptions,
    deadline_s: float,
    streams: bool,
) -> tuple[str, common_pb2.Receipt]:
    peer = system.client(router, ROUTER, f"psk-{tenant}")
    call, task = Call(deadline_s=deadline_s), _task(text)
    if not streams:
        unary = router_pb2.GenerateRequest(task=task, options=options)
        answer: Any = await peer.call("Generate", unary, call)
        return answer.result.message.content, answer.receipt
    pieces, receipt = "", common_pb2.Receipt()
    request = router_pb2.GenerateStreamRequest(task=task, options=options)
    async for part in peer.stream("GenerateStream", request, call):
        pieces += part.chunk.delta
        if part.HasField("receipt"):
            receipt = part.receipt
    return pieces, receipt


async def keep_submitting(system: System, jobs: int, told: Told) -> None:
    """Submit jobs, each again under its token until a router has accepted it."""
    rng = system.plan.rng("submitter")
    for number in range(jobs):
        await asyncio.sleep(rng.expovariate(1 / 0.3))
        text = f"{TEXTS[0]} for job {number}"
        told.job_texts.append(text)
        task = inference_pb2.Task(generate=_task(text))
        options = router_pb2.CallOptions(model=MODEL)
        token = f"job-{number}"
        request = router_pb2.SubmitJobRequest(
            task=task, idempotency_token=token, options=options, deadline_ms=60_000
        )
        told.jobs[token] = await _accepted(system, request, rng)


async def _accepted(system: System, request: router_pb2.SubmitJobRequest, rng: Random) -> str:
    while True:
        peer = system.client(rng.choice(ROUTERS), ROUTER, f"psk-{JOB_TENANT}")
        try:
            answer = await peer.call(
                "SubmitJob", request, Call(deadline_s=system.clock.monotonic() + 3.0)
            )
        except Fault:
            await asyncio.sleep(0.1)
        else:
            return str(answer.job.id)


def _task(text: str) -> inference_pb2.GenerateTask:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text)
    return inference_pb2.GenerateTask(messages=[message], max_tokens=MAX_TOKENS, temperature=0.0)
