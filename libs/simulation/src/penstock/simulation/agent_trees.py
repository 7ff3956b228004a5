"""Trees of agents that spend a started run's budget, by a seed: three limiters on one store in
virtual time, which are killed, and a store whose requests and answers are lost.

What is counted is what a provider could bill: calls that were let go, at most while they run and by
what they took once they have ended, in plain sums apart from the ledger's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from google.protobuf.message import Message
from penstock.api.common.v1 import run_pb2
from penstock.api.limiter.v1 import runs_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import PricesSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.simulation.fault_plan import FaultKind, FaultPlan
from penstock.simulation.store_server import Life, StoreServer
from penstock.simulation.virtual_loop import VirtualClock, run_virtual

LIMITERS, CHILDREN, MAX_DEPTH = 3, 64, 5
HOLD_MS = 4_000
RATES: dict[FaultKind, float] = {"delay": 0.02, "lost_request": 0.02, "lost_answer": 0.02}
KILL_EVERY_S = 1.5
ROOT = "run-tree"
CALLER = Call(Principal("acme", key_id="k1"))
GONE = (Reason.UNAVAILABLE, Reason.STORE_UNAVAILABLE)
NO_MORE = (Reason.RUN_CANCELLED, Reason.RUN_ENDED)


@dataclass
class Outcome:
    """What one seed came to. Not frozen: it counts."""

    seed: int
    children: int = 0
    """Subagents that were opened, each with its share."""
    calls: int = 0
    """Calls that were let go."""
    kills: int = 0
    raises: int = 0
    abandoned: int = 0
    """Calls whose caller was killed before it had settled them."""
    overshoot: int = 0
    """Times that a run's calls could be billed more than its limit."""
    lost_share: int = 0
    """Micro-dollars by which the tree's account, and the rows of its cost, differ from what its
    calls took.
    """
    paid_twice: int = 0
    """Settled calls that were let go again, and micro-dollars booked for them."""
    reserve_refused: int = 0
    """Final answers within the reserve that were refused."""


@dataclass
class Books:
    """What a provider could bill, by run, its descendants included."""

    parents: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    billed: dict[str, int] = field(default_factory=dict)

    def open(self, run_id: str, parent_id: str, limit: int) -> None:
        self.parents[run_id], self.limits[run_id], self.billed[run_id] = parent_id, limit, 0

    def add(self, run_id: str, microusd: int) -> int:
        """Count at a run and at those above it; returns how many are beyond their limit."""
        over, at = 0, run_id
        while at:
            self.billed[at] += microusd
            over += microusd > 0 and self.billed[at] > self.limits[at]
            at = self.parents[at]
        return over


class Limiters:
    """Limiters of one store; any may be asked, and a killed one is built anew."""

    def __init__(self, plan: FaultPlan, outcome: Outcome) -> None:
        self._clock = VirtualClock(asyncio.get_running_loop())
        self._server = StoreServer("ledger", plan)
        self._rng = plan.rng("limiters")
        self._outcome = outcome
        self._made: list[tuple[Life, LedgerStore, LimiterServicer]] = []

    async def start(self) -> None:
        for _ in range(LIMITERS):
            self._made.append(await self._build())

    async def kill(self) -> None:
        """Kill one: what it has sent may run, what it answers reaches nobody."""
        at = self._rng.randrange(LIMITERS)
        life, store, _ = self._made[at]
        life.is_alive = False
        self._server.kill(life)
        self._made[at] = await self._build()
        self._outcome.kills += 1
        await store.close()

    async def ask(self, method: str, request: Message) -> Any:
        """Ask until one answers; raises the Fault of a refusal."""
        while True:
            life, _, servicer = self._rng.choice(self._made)
            call = CALLER._replace(deadline_s=self._clock.monotonic() + 3.0)
            try:
                answer = await getattr(servicer, method)(request, call)
                if not life.is_alive:
                    raise unavailable("its limiter was killed")
                return answer
            except Fault as fault:
                if life.is_alive and fault.reason not in GONE:
                    raise
            await asyncio.sleep(self._rng.uniform(0.01, 0.2))

    async def close(self) -> None:
        for _, store, _ in self._made:
            await store.close()

    async def _build(self) -> tuple[Life, LedgerStore, LimiterServicer]:
        life = Life()
        client = self._server.opening(life)("", timeout_s=1.0, retries=0)
        store = LedgerStore(client, self._clock)
        await store.connect()
        settings = LimiterSettings(hold_ms=HOLD_MS)
        sections = LimitsSection(), PricesSection()
        return life, store, LimiterServicer(settings, *sections, store, self._clock)


class Tree:
    """One tree of agents."""

    def __init__(self, seed: int) -> None:
        self.outcome = Outcome(seed)
        self.plan = FaultPlan(seed, RATES)
        self.limiters = Limiters(self.plan, self.outcome)
        self.books = Books()
        self.settled: dict[str, tuple[str, int]] = {}
        self.rng = self.plan.rng("tree")
        self._named = 0
        self._calls = 0

    async def run(self) -> Outcome:
        """Let the agents work, and compare the books at the end."""
        await self.limiters.start()
        self.plan.is_active = True
        limit, reserve = self.rng.randint(6_000, 30_000), 200
        await self._open(ROOT, "", limit, reserve)
        killer = asyncio.create_task(self._kill())
        await self._agent(ROOT, limit, depth=0)
        await self._repeat_settled()
        await self._answer_finally(reserve)
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
        self.plan.is_active = False
        await asyncio.sleep(2 * HOLD_MS / 1e3)
        await self._compare()
        await self.limiters.close()
        return self.outcome

    async def _agent(self, run_id: str, limit: int, depth: int) -> None:
        """Work as an agent: calls of its own, and subagents with shares beside them."""
        rng, children = self.plan.rng(run_id), []
        wanted = rng.choice((0, 0, 1, 3)) * (depth < MAX_DEPTH)
        while wanted > 0 if depth else self.outcome.children < CHILDREN:
            wanted -= 1
            self._named += 1
            child = f"{ROOT}.{self._named}"
            children.append(asyncio.create_task(self._subagent(child, run_id, limit, depth)))
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        for _ in range(rng.randint(1, 3)):
            if not await self._call(run_id, rng):
                break
        await asyncio.gather(*children)

    async def _subagent(self, run_id: str, parent_id: str, limit: int, depth: int) -> None:
        rng = self.plan.rng(run_id + "/share")
        share = rng.randint(20, max(21, limit // (4 if depth else CHILDREN)))
        try:
            await self._open(run_id, parent_id, share, 0)
        except Fault:
            return  # its parent has too little left, or is no more
        self.outcome.children += 1
        await self._agent(run_id, share, depth + 1)
        actions = (pb.RUN_ACTION_END, pb.RUN_ACTION_END, pb.RUN_ACTION_CANCEL)
        action = rng.choice((*actions, pb.RUN_ACTION_UNSPECIFIED))
        if action:
            change = pb.ChangeRunRequest(run_id=run_id, action=action)
            await self.limiters.ask("ChangeRun", change)

    async def _open(self, run_id: str, parent_id: str, limit: int, reserve: int) -> None:
        request = pb.OpenRunRequest(run_id=run_id, parent_id=parent_id)
        request.limits.microusd, request.reserve.microusd = limit, reserve
        self.books.open(run_id, parent_id, limit)
        await self.limiters.ask("OpenRun", request)

    async def _call(self, run_id: str, rng: Random) -> bool:
        """One call; False where the run takes no more."""
        self._calls += 1
        hold_id, most = f"h{self._calls}", rng.randint(1, 60)
        if not await self._held(run_id, hold_id, most, rng):
            # An answer that was lost may have held, and have expired since.
            release = pb.SettleRunRequest(run_id=run_id, hold_id=hold_id)
            await self.limiters.ask("SettleRun", release)
            return False
        self.outcome.calls += 1
        self.outcome.overshoot += self.books.add(run_id, most)
        await asyncio.sleep(rng.choice((0.01, 0.2, 1.0, 1.5 * HOLD_MS / 1e3)))
        if rng.random() < 0.05:  # its caller is killed: the ledger counts it in full
            self.outcome.abandoned += 1
            return False
        took = rng.randint(0, most)
        self.books.add(run_id, took - most)
        await self._settle(run_id, hold_id, took)
        self.settled[hold_id] = run_id, most
        return True

    async def _settle(self, run_id: str, hold_id: str, microusd: int) -> None:
        settle = pb.SettleRunRequest(run_id=run_id, hold_id=hold_id)
        cost = settle.costs.add(kind=run_pb2.RUN_COST_KIND_ANSWER, step=f"step {microusd % 5}")
        cost.amount.calls, cost.amount.microusd = 1, microusd
        await self.limiters.ask("SettleRun", settle)

    async def _held(self, run_id: str, hold_id: str, most: int, rng: Random) -> bool:
        """Hold what a call may cost; at its limit, the run is raised or given up."""
        for _ in range(20):
            hold = pb.HoldRunRequest(
                run_id=run_id, hold_id=hold_id, amount=run_pb2.RunAmount(calls=1, microusd=most)
            )
            try:
                await self.limiters.ask("HoldRun", hold)
                return True
            except Fault as fault:
                if fault.reason is Reason.RUN_BUDGET_HELD:
                    await asyncio.sleep(fault.retry_after_s)
                elif fault.reason in NO_MORE or not await self._raised(run_id, most, rng):
                    return False
        return False

    async def _raised(self, run_id: str, most: int, rng: Random) -> bool:
        """Raise a run that is paused at its limit, sometimes; whether that was done."""
        if rng.random() < 0.5:
            return False
        limit = self.books.limits[run_id] + most
        change = pb.ChangeRunRequest(run_id=run_id, action=pb.RUN_ACTION_RAISE)
        change.limits.microusd = limit
        before, self.books.limits[run_id] = self.books.limits[run_id], limit
        try:
            await self.limiters.ask("ChangeRun", change)
        except Fault:
            self.books.limits[run_id] = before
            return False
        self.outcome.raises += 1
        return True

    async def _repeat_settled(self) -> None:
        """Raise the root, and repeat what was paid, as an agent that starts again from its log."""
        self.books.limits[ROOT] += 10_000
        change = pb.ChangeRunRequest(run_id=ROOT, action=pb.RUN_ACTION_RAISE)
        change.limits.microusd = self.books.limits[ROOT]
        await self.limiters.ask("ChangeRun", change)
        before = await self._charged()
        for hold_id, (run_id, most) in list(self.settled.items())[:20]:
            amount = run_pb2.RunAmount(calls=1, microusd=most)
            hold = pb.HoldRunRequest(run_id=run_id, hold_id=hold_id, amount=amount)
            try:
                await self.limiters.ask("HoldRun", hold)
                self.outcome.paid_twice += 1
            except Fault as fault:
                self.outcome.paid_twice += fault.reason is not Reason.SUPERSEDED
        self.outcome.paid_twice += max(0, await self._charged() - before)

    async def _charged(self) -> int:
        """Spent and held: the hold of a caller that was killed becomes spent when it expires."""
        answer = await self.limiters.ask("ReadRun", pb.ReadRunRequest(run_id=ROOT))
        return sum(int(run.spent.microusd + run.held.microusd) for run in answer.runs)

    async def _answer_finally(self, reserve: int) -> None:
        """Spend all but the reserve, and then the reserve."""
        run = (await self.limiters.ask("ReadRun", pb.ReadRunRequest(run_id=ROOT))).runs[0]
        used = run.spent.microusd + run.held.microusd + run.shared.microusd
        for hold_id, microusd, is_final in (
            ("rest", run.limits.microusd - reserve - used, False),
            ("final", reserve, True),
        ):
            amount = run_pb2.RunAmount(calls=1, microusd=microusd)
            hold = pb.HoldRunRequest(run_id=ROOT, hold_id=hold_id, amount=amount, is_final=is_final)
            try:
                await self.limiters.ask("HoldRun", hold)
            except Fault:
                self.outcome.reserve_refused += is_final
                continue
            self.outcome.overshoot += self.books.add(ROOT, microusd)
            await self._settle(ROOT, hold_id, microusd)

    async def _compare(self) -> None:
        """End the tree: what it has used is what its calls took, and nothing is held."""
        end = pb.ChangeRunRequest(run_id=ROOT, action=pb.RUN_ACTION_END)
        root = (await self.limiters.ask("ChangeRun", end)).runs[0]
        used = root.spent.microusd + root.held.microusd + root.shared.microusd
        billed = self.books.billed[ROOT]
        answer = await self.limiters.ask("ReadRunCost", pb.ReadRunCostRequest(run_id=ROOT))
        rows = sum(int(row.amount.microusd) for row in answer.costs)
        self.outcome.lost_share = abs(used - billed) + abs(rows - billed) + root.held.microusd

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * KILL_EVERY_S)
            await self.limiters.kill()


async def _play(seed: int) -> Outcome:
    return await Tree(seed).run()


def play(seed: int) -> Outcome:
    """What a seed comes to."""
    return run_virtual(_play(seed))
