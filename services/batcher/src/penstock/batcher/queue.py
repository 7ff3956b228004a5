"""The queue before one instance: admits, groups when the instance is free, hands over, and settles
each member exactly once.

Ownership: a member belongs to the scheduler while it waits, to its batch while it runs; whoever
owns it settles its future. A caller that has gone is forgotten by the queue while waiting, and
ignored by its batch while running, so that it never spoils the others' answers. A stream is a batch
of one whose slot belongs to its caller from its turn until the caller leaves `turn`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher import fair_queue as policy
from penstock.batcher.batch_delay import Arrivals, RowLimits
from penstock.batcher.batch_formation import CostModel, FormerLimits, form, padding_waste
from penstock.batcher.concurrency import FixedLimit, GradientLimit
from penstock.batcher.fair_queue import Entry, Scheduler
from penstock.batcher.settings import KnobsSection
from penstock.batcher.tuning import limits_of, weights_of
from penstock.rpc.call import NORMAL, Call
from penstock.rpc.errors import Fault, deadline_exceeded, exhausted, from_item_status, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

STREAM = "\x00stream"
"""Marks an entry's model so that a stream shares no batch."""
SURE_SAMPLES = 16
TRY_AGAIN_S = 1.0
"""Batches after which the learnt cost is believed, and how long after the last one."""


@dataclass(frozen=True)
class Served:
    """A member's answer: result, its batch, and the instance's load."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.BatchReceipt
    load: common_pb2.LoadReport


@dataclass(eq=False, slots=True)
class Member:
    """A caller's work in the queue and the future that it awaits; a stream's future is done with an
    empty answer when its turn comes.
    """

    entry: Entry
    task: inference_pb2.Task
    call: Call
    future: asyncio.Future[Served]
    started_s: float | None = None
    left: asyncio.Event | None = None
    """Set when the caller of a stream has left; None for others."""
    late_at_s: float = math.inf
    batch: _Batch | None = None


@dataclass(eq=False)
class _Batch:
    """A batch that runs in a task of its own."""

    task: asyncio.Task[None]
    members: Sequence[Member]

    def stop_if_deserted(self) -> None:
        """A member has left; work that nobody waits for any more is cancelled at the instance
        too.
        """
        if all(member.future.done() for member in self.members):
            self.task.cancel()


class Instance(Protocol):
    """What the queue needs of the instance behind it."""

    def run(
        self, model: str, members: Sequence[Member]
    ) -> AsyncIterator[tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]]:
        """Run a batch; yields (position, result, load) for each member as it gets ready."""
        ...


Dropped = Callable[[str], None]
"""Told the reason of each member that was dropped; `formed` is told the padding waste of each
batch.
"""


class InstanceQueue:
    """One instance's queue. `knobs` is asked for at each batch, so that changes count at once."""

    def __init__(
        self,
        instance: Instance,
        concurrency: int,
        knobs: dict[str, KnobsSection],
        clock: Clock,
        *,
        adaptive: bool = False,
        dropped: Dropped = lambda _: None,
        formed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._instance = instance
        self.limit: FixedLimit | GradientLimit = (
            GradientLimit(float(concurrency or 4)) if adaptive else FixedLimit(concurrency)
        )
        self._knobs = knobs
        self._clock = clock
        self._dropped = dropped
        self._formed = formed
        self._scheduler = Scheduler()
        self._members: dict[int, Member] = {}
        self._ids = itertools.count(1)
        self._batches: set[asyncio.Future[Any]] = set()
        self._delay: asyncio.TimerHandle | None = None
        self._closed = False
        self._in_force: KnobsSection | None = None
        self._postponable = 0
        self._tokens: Counter[str] = Counter()
        self._arrivals = Arrivals()
        self._learnt_s = -math.inf
        self._row_limits = RowLimits()
        self.costs: dict[str, CostModel] = {}

    @property
    def running(self) -> int:
        """Batches and streams that run now."""
        return len(self._batches)

    @property
    def waiting(self) -> Scheduler:
        """What waits, for display."""
        return self._scheduler

    async def submit(
        self, task: inference_pb2.Task, model: str, call: Call, size: tuple[int, int]
    ) -> Served:
        """Wait for a turn and for the answer; `size` is (rows, tokens).

        Raises:
            Fault: DEADLINE_EXCEEDED where it cannot be served in time, RESOURCE_EXHAUSTED where the
                queue is full, UNAVAILABLE where the instance has gone, or what the instance said of
                this member.
        """
        member = self._admit(task, model, call, size)
        if self._idle and not self.knobs_of(model).max_queue_delay_microseconds:
            with self._slot(member):
                await self._run([member], "instance_free")
            return member.future.result()
        self._wait_for_turn(member)
        try:
            return await member.future
        except asyncio.CancelledError:
            if member.batch is not None:
                member.batch.stop_if_deserted()
            raise
        finally:
            self._forget(member.entry.id)

    @contextlib.asynccontextmanager
    async def turn(
        self, task: inference_pb2.Task, model: str, call: Call, size: tuple[int, int]
    ) -> AsyncIterator[common_pb2.BatchReceipt]:
        """Wait for a slot of the instance and hold it while the block runs; raises as `submit` does
        before the block is entered.

        A Fault that leaves the block and tells of overload lowers an adaptive limit.
        """
        member = self._admit(task, model + STREAM, call, size)
        member.left = asyncio.Event()
        try:
            if self._idle:
                with self._slot(member):
                    yield _streamed(member)
            else:
                self._wait_for_turn(member)
                yield (await member.future).receipt
        except Fault as fault:
            if member.started_s is not None and fault.consequences.overload:
                self.limit.overloaded()
            raise
        finally:
            member.left.set()
            self._forget(member.entry.id)

    @property
    def _idle(self) -> bool:
        """Nothing waits and a slot is free: a newcomer needs no turn."""
        return len(self._batches) < self.limit.limit and not len(self._scheduler)

    @contextlib.contextmanager
    def _slot(self, member: Member) -> Iterator[None]:
        """A slot of an idle instance, held in its caller's own task: no queue, no task and no
        wake-up lie between the two.

        The caller's leaving, by answer, fault or cancel, gives the slot back and starts what waits
        by then.
        """
        now = member.started_s = member.entry.arrived_s
        self._scheduler.codel.observe(0.0, now)
        self._batches.add(member.future)
        try:
            yield
        finally:
            if member.future.done() and not member.future.cancelled():
                # it may have been settled for a caller that left, and then nobody looks at it
                member.future.exception()
            member.future.cancel()
            self._forget(member.entry.id)
            self._ended(member.future)

    def _wait_for_turn(self, member: Member) -> None:
        self._scheduler.push(member.entry)
        self._pump()

    def first_token(self, delay_ms: float) -> None:
        """The first piece of a stream came after so long."""
        self.limit.finished(delay_ms, self.running)

    def _admit(
        self, task: inference_pb2.Task, model: str, call: Call, size: tuple[int, int]
    ) -> Member:
        if self._closed:
            raise unavailable("the instance is leaving", reason=Reason.INSTANCE_LEAVING)
        now = self._clock.monotonic()
        priority = call.priority or NORMAL
        limits = limits_of(self.knobs_of(model), priority)
        self._arrivals.note(now)
        rows, tokens = size
        late_at_s = now + limits.timeout_s if limits.timeout_s else math.inf
        # An entry's deadline is when it must have begun: its own service lies between that and its
        # caller's deadline.
        service_ms = (
            0.0
            if self._may_try(model, now)
            else self._cost(model).predict_ms(rows, -(-tokens // rows))
        )
        begin_by_s = call.deadline_s - service_ms / 1e3
        deadline_s = begin_by_s if limits.delay else min(begin_by_s, late_at_s)
        entry = Entry(
            next(self._ids),
            priority,
            call.principal.organisation,
            model,
            rows,
            tokens,
            now,
            deadline_s,
        )
        if why := policy.refusal(entry, now, self._waiting_ms()):
            self._dropped("deadline")
            raise deadline_exceeded(f"not queued: {why}")
        if (
            limits.max_class_size
            and self._scheduler.count(model, priority) >= limits.max_class_size
        ):
            self._drop_for(entry, priority)
        elif self._scheduler.count(model) >= limits.max_queue_size:
            self._drop_for(entry)
        late = late_at_s if limits.delay and limits.timeout_s else math.inf
        member = Member(
            entry, task, call, asyncio.get_running_loop().create_future(), late_at_s=late
        )
        self._members[entry.id] = member
        self._tokens[model] += tokens
        self._postponable += not math.isinf(late)
        return member

    def _may_try(self, model: str, now: float) -> bool:
        """On an idle instance a prediction that is young or old refuses nothing: a cost that was
        learnt too high, by a first run that loaded the model, say, would refuse every request that
        could correct it.
        """
        return self._idle and (
            self._cost(model).samples < SURE_SAMPLES or now - self._learnt_s >= TRY_AGAIN_S
        )

    def _forget(self, entry_id: int) -> Member | None:
        """Take a member off the books; None where it has left already."""
        member = self._members.pop(entry_id, None)
        if member is not None:
            self._tokens[member.entry.model] -= member.entry.tokens
            self._postponable -= not math.isinf(member.late_at_s)
            self._scheduler.remove(entry_id)
        return member

    def _waiting_ms(self) -> float:
        if not self._batches:
            return 0.0
        work_ms = sum(
            self._cost(model).per_token_ms * tokens for model, tokens in self._tokens.items()
        )
        return work_ms / self.limit.limit

    def _drop_for(self, newcomer: Entry, priority: int | None = None) -> None:
        """Make room in a full queue, of the model or of one class of it: the longest flow for its
        weight loses its newest entry, or the newcomer is refused where that flow is its own.
        """
        self._dropped("queue_full")
        victim = self._scheduler.longest_flow_tail(newcomer.model, priority)
        full = exhausted(
            "the queue is full",
            reason=Reason.QUEUE_FULL,
            retry_after_s=max(0.05, self._waiting_ms() / 1e3),
        )
        if victim is None or (victim.priority, victim.tenant) == (
            newcomer.priority,
            newcomer.tenant,
        ):
            raise full
        self._settle(victim.id, full)

    def _settle(self, entry_id: int, outcome: Served | Fault) -> None:
        """End a member, once; a caller that has gone is not there any more."""
        member = self._forget(entry_id)
        if member is None or member.future.done():
            return
        if isinstance(outcome, Fault):
            member.future.set_exception(outcome)
        else:
            member.future.set_result(outcome)

    def _pump(self) -> None:
        """Start batches while the instance has room and work waits.

        Called on every arrival and every end: an idle queue adds no wait.
        """
        while len(self._batches) < self.limit.limit and len(self._scheduler):
            now = self._clock.monotonic()
            self._drop_late(now)
            batch, reason = self._next_batch(now)
            if not batch:
                return
            for member in batch:
                self._scheduler.serve(member.entry)
                self._scheduler.codel.observe(now - member.entry.arrived_s, now)
                member.started_s = now
            if len(batch) > 1:
                self._formed(padding_waste([member.entry for member in batch]))
            run = (
                self._hold(batch[0])
                if batch[0].entry.model.endswith(STREAM)
                else self._run(batch, reason)
            )
            task = asyncio.get_running_loop().create_task(run)
            running = _Batch(task, batch)
            for member in batch:
                member.batch = running
            self._batches.add(task)
            task.add_done_callback(self._ended)

    def _drop_late(self, now: float) -> None:
        for late in self._scheduler.expire(now):
            self._dropped("timeout")
            self._settle(
                late.id,
                deadline_exceeded("no time was left to be served in while waiting in the queue"),
            )
        if self._postponable:
            for member in [
                item
                for item in self._members.values()
                if item.late_at_s <= now and item.started_s is None
            ]:
                member.late_at_s = math.inf
                self._postponable -= 1
                self._scheduler.postpone(member.entry.id)

    def _ended(self, slot: asyncio.Future[Any]) -> None:
        self._batches.discard(slot)
        if not self._closed:
            self._pump()

    def _next_batch(self, now: float) -> tuple[list[Member], str]:
        if self._in_force is not self._knobs[""]:
            self._in_force = self._knobs[""]
            self._scheduler.configure(weights_of(self._in_force), self._in_force.strict_priority)
        head = next(self._scheduler.ordered(1), None)
        if head is None:
            return [], ""
        if head.model.endswith(STREAM):
            return [self._members[head.id]], "instance_free"
        knobs = self.knobs_of(head.model)
        rows_limit = self._row_limits.of(head.model, knobs.max_batch_size)
        limits = FormerLimits(
            rows_limit, knobs.max_batch_tokens, knobs.max_batch_ms, knobs.max_urgent_batch_ms
        )
        alone = len(self._scheduler) == 1
        chosen = (
            [head]
            if alone
            else form(self._scheduler.ordered(knobs.look_ahead), self._cost(head.model), limits)
        )
        rows = sum(entry.rows for entry in chosen)
        reason = (
            "full" if rows >= rows_limit or rows in knobs.preferred_batch_size else "instance_free"
        )
        most_s = knobs.max_queue_delay_microseconds / 1e6
        may_wait = most_s > 0 and reason != "full" and not self._scheduler.rows(policy.CRITICAL)
        wait_s = (
            self._arrivals.worth_waiting_s(chosen, self._cost(head.model), most_s, now)
            if may_wait
            else 0.0
        )
        if wait_s > 0:
            self._wake_at(wait_s)
            return [], ""
        waited = most_s > 0 and reason != "full" and now > head.arrived_s
        return [self._members[entry.id] for entry in chosen], "delay" if waited else reason

    def _wake_at(self, seconds: float) -> None:
        if self._delay is not None:
            self._delay.cancel()
        self._delay = asyncio.get_running_loop().call_later(seconds, self._pump)

    async def _hold(self, member: Member) -> None:
        """A stream's turn: its slot is taken until its caller has left."""
        if member.future.done():
            return
        member.future.set_result(
            Served(inference_pb2.TaskResult(), _streamed(member), common_pb2.LoadReport())
        )
        assert member.left is not None
        await member.left.wait()

    async def _run(self, batch: list[Member], reason: str) -> None:
        began = self._clock.monotonic()
        rows = sum(member.entry.rows for member in batch)
        model, overloaded = batch[0].entry.model, False
        try:
            async for position, result, load in self._instance.run(model, batch):
                overloaded = overloaded or _says_overload(result.status)
                self._finish(batch[position], result, load, (rows, reason))
        except Fault as fault:
            if fault.consequences.overload:
                self.limit.overloaded()
            for member in batch:
                self._settle(member.entry.id, fault)
            return
        finally:
            for member in batch:
                self._settle(
                    member.entry.id,
                    unavailable("the instance gave no answer", reason=Reason.NO_ANSWER),
                )
        if overloaded:
            # A member that was turned away took no time to speak of: the batch teaches nothing but
            # that it was too much.
            self.limit.overloaded()
            return
        took_ms = (self._clock.monotonic() - began) * 1e3
        self._learnt_s = self._clock.monotonic()
        self._cost(model).learn(
            rows, max(-(-member.entry.tokens // member.entry.rows) for member in batch), took_ms
        )
        self.limit.finished(took_ms / sum(member.entry.tokens for member in batch), self.running)
        knobs = self.knobs_of(model)
        if knobs.max_batch_ms:
            self._row_limits.ran(model, rows, took_ms / knobs.max_batch_ms, knobs.max_batch_size)

    def _finish(
        self,
        member: Member,
        result: inference_pb2.MemberResult,
        load: common_pb2.LoadReport,
        batch: tuple[int, str],
    ) -> None:
        if result.status.code:
            self._settle(member.entry.id, from_item_status(result.status))
            return
        receipt = common_pb2.BatchReceipt(
            queued_ms=_queued_ms(member), batch_size=batch[0], release_reason=batch[1]
        )
        self._settle(member.entry.id, Served(result.result, receipt, self.with_queue(load)))

    def with_queue(self, load: common_pb2.LoadReport) -> common_pb2.LoadReport:
        """The instance's load with what waits here added: all that is in flight through this
        batcher, less the one that is answered.
        """
        report = common_pb2.LoadReport()
        report.CopyFrom(load)
        report.in_flight = max(0, len(self._members) - 1)
        report.queued = len(self._scheduler)
        return report

    def knobs_of(self, model: str) -> KnobsSection:
        """The knobs in force for a model."""
        return self._knobs.get(model.removesuffix(STREAM)) or self._knobs[""]

    def _cost(self, model: str) -> CostModel:
        return self.costs.setdefault(model.removesuffix(STREAM), CostModel())

    def close(self) -> int:
        """Take no more; what waits is returned as retryable, what runs is finished.

        Returns how many were returned.
        """
        self._closed = True
        waiting = (
            list(self._scheduler.ordered(len(self._scheduler))) if len(self._scheduler) else []
        )
        for entry in waiting:
            self._settle(
                entry.id, unavailable("the instance is leaving", reason=Reason.INSTANCE_LEAVING)
            )
        if self._delay is not None:
            self._delay.cancel()
        return len(waiting)

    async def drained(self) -> None:
        """Wait until nothing runs."""
        while self._batches:
            await asyncio.wait(list(self._batches))


def _says_overload(status: common_pb2.ItemStatus) -> bool:
    return bool(status.code) and from_item_status(status).consequences.overload


def _queued_ms(member: Member) -> float:
    return ((member.started_s or 0.0) - member.entry.arrived_s) * 1e3


def _streamed(member: Member) -> common_pb2.BatchReceipt:
    return common_pb2.BatchReceipt(
        queued_ms=_queued_ms(member), batch_size=1, release_reason="instance_free"
    )
