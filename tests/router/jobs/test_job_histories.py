"""Random histories of jobs on three routers that lose the store, stall and come back: each job is
accepted once, ended once and charged once, for what the try that ended it has spent.

The ledger is the limiter's own, on the same store. The seed of a history stands in the test's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.calls.state import Outcome
from penstock.router.jobs.jobs import Jobs
from penstock.router.requests.resolved import JobTry, ResolvedRequest
from penstock.router.settings import RouterSettings
from penstock.router.stages import perform
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.store import embedded_store, open_store
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED
from penstock.testkit.cuttable_store import CuttableStore
from penstock.testkit.eventually import eventually
from penstock.testkit.server import peer_to

ACME = Call(Principal("acme", key_id="k1"))
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
RULE = {
    "name": "tokens",
    "kind": "budget",
    "counts": "tokens",
    "limit": 10_000_000,
    "window": "month",
    "calendar": True,
}
MAX_TOKENS = 1_000
SETTINGS = RouterSettings(job_lease_ms=200, job_slots=6, job_attempts=100)
LEASE_PASSES_MS = SETTINGS.job_lease_ms + 1_700
ROUTERS, JOBS, STEPS = 3, 6, 36
STEPS_TO_TAKE = ("submit", "submit", "finish", "finish", "finish", "cut", "mend", "lease", "lease")


@dataclass
class Work:
    """The tries that are being served, each until the history lets it end."""

    admission: LimiterAdmission
    rng: Random
    waiting: list[asyncio.Event] = field(default_factory=list)
    is_over: bool = False

    async def serve(self, request: pb.SubmitJobRequest, call: Call, attempt: JobTry) -> Outcome:
        """Hold, wait to be let go on, settle: the tokens are another number for each try."""
        resolved = ResolvedRequest(
            pb.CallOptions(), EMBED, request.task, "m", Estimate(1, 10, 0, MAX_TOKENS), job=attempt
        )
        admitted = await self.admission.admit(call, resolved)
        receipt = None
        try:
            await self._let_go_on()
            receipt = common_pb2.Receipt(request_id=str(attempt.fence))
            receipt.usage.input_tokens = self.rng.randint(1, MAX_TOKENS)
            return Outcome(inference_pb2.TaskResult(revision="1"), receipt)
        finally:
            await asyncio.shield(perform(self.admission.settle(admitted, receipt, None)))

    async def _let_go_on(self) -> None:
        if self.is_over:
            return
        gate = asyncio.Event()
        self.waiting.append(gate)
        await gate.wait()

    def let_one_go_on(self) -> None:
        """Let a try end; it may be one whose job others serve by now."""
        if self.waiting:
            self.waiting.pop(self.rng.randrange(len(self.waiting))).set()

    def let_all_go_on(self) -> None:
        """Let every try end from now on."""
        self.is_over = True
        for gate in self.waiting:
            gate.set()


@dataclass
class Routers:
    """Routers, and their connections to the store, which can be cut."""

    jobs: list[Jobs]
    connections: list[CuttableStore]
    work: Work
    limiter: LimiterServicer
    ledger: LedgerStore
    store: Any

    async def submit(self, number: int, token: str) -> str:
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[token]))
        request = pb.SubmitJobRequest(task=task, idempotency_token=token)
        return str((await self.jobs[number].submit(request, ACME)).id)

    async def ended(self, names: list[str]) -> list[pb.Job]:
        jobs: list[pb.Job] = []

        async def all_have_ended() -> bool:
            jobs[:] = [await self.jobs[0].get(name, ACME) for name in names]
            return all(job.ended_unix_ms for job in jobs)

        await eventually(all_have_ended, timeout_s=30)
        return jobs


@pytest.fixture
async def routers(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Routers]:
    rng = Random(request.getfixturevalue("seed"))
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_store(tmp_path / "redis"))
        clock, store = SystemClock(), await stack.enter_async_context(open_store(url))
        client = open_store(url)
        ledger = LedgerStore(client, clock, StoreTimings(timeout_s=5.0))
        stack.push_async_callback(ledger.close)
        section = LimitsSection.model_validate({"rules": [RULE]})
        limiter = LimiterServicer(LimiterSettings(), section, PricesSection(), ledger, clock)
        peer = peer_to(LIMITER, limiter, clock)
        admission = LimiterAdmission(peer, Current(Prices.from_section(PricesSection())), clock)
        stack.push_async_callback(admission.close)
        work = Work(admission, rng)
        connections: list[Any] = [CuttableStore(url) for _ in range(ROUTERS)]
        jobs = [Jobs(SETTINGS, connection, work.serve, clock) for connection in connections]
        for one, connection in zip(jobs, connections, strict=True):
            one.start()
            stack.push_async_callback(connection.aclose)
            stack.push_async_callback(one.close)
        yield Routers(jobs, connections, work, limiter, ledger, store)
        work.let_all_go_on()


async def play(routers: Routers, rng: Random) -> list[str]:
    """Take random steps; returns the jobs' ids."""
    tokens = [f"job-{number}" for number in range(JOBS)]
    names: dict[str, str] = {}
    cut: set[int] = set()

    async def lease_passes() -> None:
        """Wait until others have claimed what a cut router serves, by the store's own clock."""
        await routers.store.set("lease", 1, px=LEASE_PASSES_MS)
        await eventually(lambda: _is_gone(routers.store, "lease"), every_s=0.05)

    for _ in range(STEPS):
        step = rng.choice(STEPS_TO_TAKE)
        up = [number for number in range(ROUTERS) if number not in cut]
        match step:
            case "submit":
                token = rng.choice(tokens)
                name = await routers.submit(rng.choice(up), token)
                assert names.setdefault(token, name) == name, "a token is one job"
            case "finish":
                routers.work.let_one_go_on()
            case "cut" if len(up) > 1:
                number = rng.choice(up)
                routers.connections[number].cut()
                cut.add(number)
            case "mend" if cut:
                number = rng.choice(sorted(cut))
                routers.connections[number].mend()
                cut.discard(number)
            case "lease":
                await lease_passes()
    for number in cut:
        routers.connections[number].mend()
    return list(names.values())


async def _is_gone(store: Any, key: str) -> bool:
    return not await store.exists(key)


@pytest.mark.parametrize("seed", range(4))
async def test_each_job_is_ended_once_and_charged_for_the_try_that_ended_it(
    routers: Routers, seed: int
) -> None:
    names = await play(routers, Random(seed))
    routers.work.let_all_go_on()
    jobs = await routers.ended(names)
    assert [job.state for job in jobs] == [pb.JOB_STATE_SUCCEEDED] * len(names)
    ends = [
        int(await routers.store.hget(f"penstock:{{jobs}}:job:{name}", "ends")) for name in names
    ]
    assert ends == [1] * len(names)
    charged = sum(job.receipt.usage.input_tokens for job in jobs)

    async def booked() -> None:
        usage = await routers.limiter.GetUsage(limiter_pb2.GetUsageRequest(model="m"), ACME)
        (rule,) = usage.rules
        assert (rule.committed.tokens, rule.held.tokens) == (charged, 0)

    await eventually(booked)
    assert (await routers.ledger.verify("acme"))[1] == []
