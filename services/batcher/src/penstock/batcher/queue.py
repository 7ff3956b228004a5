"""The queue before one instance: admits, groups when the instance is free, hands over, and settles each member exactly once.

Ownership: a member belongs to the scheduler while it waits, to its batch while it runs; whoever owns it settles its future. A caller that
has gone is forgotten by the queue while waiting, and ignored by its batch while running, so that it never spoils the others' answers.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher import policy
from penstock.batcher.config import KnobsSection
from penstock.batcher.former import CostModel, FormerLimits, form
from penstock.batcher.policy import Entry, Scheduler
from penstock.core.call import NORMAL, Call
from penstock.core.clock import Clock
from penstock.core.errors import Fault, deadline_exceeded, exhausted, from_item_status, unavailable


@dataclass(frozen=True)
class Served:
    """A member's answer: result, its batch, and the instance's load."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.BatchReceipt
    load: common_pb2.LoadReport


@dataclass(eq=False)
class Member:
    """A caller's work in the queue and the future that it awaits."""

    entry: Entry
    task: inference_pb2.Task
    call: Call
    future: asyncio.Future[Served]
    started_s: float = 0.0


class Instance(Protocol):
    """What the queue needs of the instance behind it."""

    def run(
        self, model: str, members: Sequence[Member]
    ) -> AsyncIterator[tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]]:
        """Run a batch; yields (position, result, load) for each member as it gets ready."""
        ...


class InstanceQueue:
    """One instance's queue. `knobs` is asked for at each batch, so that changes count at once."""

    def __init__(self, instance: Instance, concurrency: int, knobs: dict[str, KnobsSection], clock: Clock) -> None:
        self._instance = instance
        self.concurrency = max(1, concurrency)
        self._knobs = knobs
        self._clock = clock
        self._scheduler = Scheduler()
        self._members: dict[int, Member] = {}
        self._ids = itertools.count(1)
        self._batches: set[asyncio.Task[None]] = set()
        self._delay: asyncio.TimerHandle | None = None
        self._closed = False
        self.costs: dict[str, CostModel] = {}

    @property
    def running(self) -> int:
        """Batches that run now."""
        return len(self._batches)

    @property
    def waiting(self) -> Scheduler:
        """What waits, for display."""
        return self._scheduler

    async def submit(self, task: inference_pb2.Task, model: str, call: Call, size: tuple[int, int]) -> Served:
        """Wait for a turn and for the answer; `size` is (rows, tokens).

        Raises:
            Fault: DEADLINE_EXCEEDED where it cannot be served in time, RESOURCE_EXHAUSTED where the queue is full, UNAVAILABLE where
                the instance has gone, or what the instance said of this member.
        """
        member = self._admit(task, model, call, size)
        self._pump()
        try:
            return await member.future
        finally:
            if self._members.pop(member.entry.id, None) is not None:
                self._scheduler.remove(member.entry.id)

    def _admit(self, task: inference_pb2.Task, model: str, call: Call, size: tuple[int, int]) -> Member:
        if self._closed:
            raise unavailable("the instance is leaving", reason="INSTANCE_LEAVING")
        now = self._clock.monotonic()
        knobs = self.knobs_of(model)
        rows, tokens = size
        deadline_s = call.deadline_s
        if knobs.default_timeout_microseconds:
            deadline_s = min(deadline_s, now + knobs.default_timeout_microseconds / 1e6)
        entry = Entry(
            next(self._ids), call.priority or NORMAL, call.principal.organisation, model, rows, tokens, now, deadline_s
        )
        if why := policy.refusal(
            entry, now, self._waiting_ms(), self._cost(model).predict_ms(rows, -(-tokens // rows))
        ):
            raise deadline_exceeded(f"not queued: {why}")
        if len(self._scheduler) >= knobs.max_queue_size:
            self._drop_for(entry)
        member = Member(entry, task, call, asyncio.get_running_loop().create_future())
        self._members[entry.id] = member
        self._scheduler.push(entry)
        return member

    def _waiting_ms(self) -> float:
        if not self._batches:
            return 0.0
        return (
            sum(self._cost(member.entry.model).per_token_ms * member.entry.tokens for member in self._members.values())
            / self.concurrency
        )

    def _drop_for(self, newcomer: Entry) -> None:
        """Make room in a full queue: the longest flow for its weight loses its newest entry, or the newcomer is refused."""
        victim = self._scheduler.longest_flow_tail()
        full = exhausted("the queue is full", "QUEUE_FULL", retry_after_s=max(0.05, self._waiting_ms() / 1e3))
        if victim is None or victim.tenant == newcomer.tenant:
            raise full
        self._settle(victim.id, full)

    def _settle(self, entry_id: int, outcome: Served | Fault) -> None:
        """End a member, once; a caller that has gone is not there any more."""
        member = self._members.pop(entry_id, None)
        if member is None:
            return
        self._scheduler.remove(entry_id)
        if member.future.done():
            return
        if isinstance(outcome, Fault):
            member.future.set_exception(outcome)
        else:
            member.future.set_result(outcome)

    def _pump(self) -> None:
        """Start batches while the instance has room and work waits. Called on every arrival and every end: an idle queue adds no wait."""
        while len(self._batches) < self.concurrency and len(self._scheduler):
            now = self._clock.monotonic()
            for late in self._scheduler.expire(now):
                self._settle(late.id, deadline_exceeded("the time was up while waiting in the queue"))
            batch, reason = self._next_batch(now)
            if not batch:
                return
            for member in batch:
                self._scheduler.serve(member.entry)
                member.started_s = now
            task = asyncio.get_running_loop().create_task(self._run(batch, reason))
            self._batches.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if not self._closed:
            self._pump()

    def _next_batch(self, now: float) -> tuple[list[Member], str]:
        head = next(self._scheduler.ordered(1), None)
        if head is None:
            return [], ""
        knobs = self.knobs_of(head.model)
        limits = FormerLimits(
            knobs.max_batch_size, knobs.max_batch_tokens, knobs.max_batch_ms, knobs.max_urgent_batch_ms
        )
        chosen = form(self._scheduler.ordered(knobs.look_ahead), self._cost(head.model), limits)
        rows = sum(entry.rows for entry in chosen)
        if rows >= knobs.max_batch_size or rows in knobs.preferred_batch_size:
            return [self._members[entry.id] for entry in chosen], "full"
        wait_until = head.arrived_s + knobs.max_queue_delay_microseconds / 1e6
        if now < wait_until and head.priority < policy.CRITICAL:
            self._wake_at(wait_until - now)
            return [], ""
        return [
            self._members[entry.id] for entry in chosen
        ], "delay" if knobs.max_queue_delay_microseconds else "instance_free"

    def _wake_at(self, seconds: float) -> None:
        if self._delay is not None:
            self._delay.cancel()
        self._delay = asyncio.get_running_loop().call_later(seconds, self._pump)

    async def _run(self, batch: list[Member], reason: str) -> None:
        began = self._clock.monotonic()
        rows = sum(member.entry.rows for member in batch)
        try:
            async for position, result, load in self._instance.run(batch[0].entry.model, batch):
                self._finish(batch[position], result, load, (rows, reason))
        except Fault as fault:
            for member in batch:
                self._settle(member.entry.id, fault)
        finally:
            for member in batch:
                self._settle(member.entry.id, unavailable("the instance gave no answer", reason="NO_ANSWER"))
        longest = max(-(-member.entry.tokens // member.entry.rows) for member in batch)
        self._cost(batch[0].entry.model).learn(rows, longest, (self._clock.monotonic() - began) * 1e3)

    def _finish(
        self, member: Member, result: inference_pb2.MemberResult, load: common_pb2.LoadReport, batch: tuple[int, str]
    ) -> None:
        if result.status.code:
            self._settle(member.entry.id, from_item_status(result.status))
            return
        queued_ms = (member.started_s - member.entry.arrived_s) * 1e3
        receipt = common_pb2.BatchReceipt(queued_ms=queued_ms, batch_size=batch[0], release_reason=batch[1])
        report = common_pb2.LoadReport()
        report.CopyFrom(load)
        report.in_flight = len(self._members) - 1
        report.queued = len(self._scheduler)
        self._settle(member.entry.id, Served(result.result, receipt, report))

    def knobs_of(self, model: str) -> KnobsSection:
        """The knobs in force for a model."""
        return self._knobs.get(model) or self._knobs[""]

    def _cost(self, model: str) -> CostModel:
        return self.costs.setdefault(model, CostModel())

    def close(self) -> int:
        """Take no more; what waits is returned as retryable, what runs is finished. Returns how many were returned."""
        self._closed = True
        waiting = list(self._scheduler.ordered(len(self._scheduler) or 1)) if len(self._scheduler) else []
        for entry in waiting:
            self._settle(entry.id, unavailable("the instance is leaving", reason="INSTANCE_LEAVING"))
        return len(waiting)

    async def drained(self) -> None:
        """Wait until no batch runs."""
        while self._batches:
            await asyncio.wait(list(self._batches))
