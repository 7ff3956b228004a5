"""The queue of one instance: grouping, who gets a slot, what is refused, cancels, a lost instance.

The instance answers when its gate opens, and time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.instance_profile import (
    TRUSTED_FOR_S,
    TRUSTED_SAMPLES,
    FixedLimit,
    GradientLimit,
)
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import (
    Answer,
    InstanceResult,
    OneResult,
    PendingRequest,
    TaskSize,
)
from penstock.batcher.settings import BatchingSection, KnobsSection, QueuePolicySection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import OK, Fault, exhausted, invalid, to_item_status, unavailable
from penstock.testkit.clock import FakeClock

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
SIZE = TaskSize(rows=1, tokens=10)
LOW, NORMAL, CRITICAL = 1, 2, 4
FAULTS = {
    "bad": invalid("task.embed.texts[0]", "is bad"),
    "limited": exhausted("too much", retry_after_s=1.0),
}
"""What the instance answers to these texts."""


class GatedInstance:
    """Answers when its gate opens."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.gate = asyncio.Event()
        self.is_lost = False
        self.cancelled = 0

    async def run_one(self, request: PendingRequest) -> OneResult:
        await self._pass(1)
        if fault := FAULTS.get(request.task.embed.texts[0]):
            raise fault
        return OneResult(inference_pb2.TaskResult(), common_pb2.LoadReport(concurrency=1))

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        await self._pass(len(requests))
        for index, request in enumerate(requests):
            fault = FAULTS.get(request.task.embed.texts[0])
            status = to_item_status(fault) if fault else OK
            result = inference_pb2.MemberResult(index=index, status=status)
            yield index, result, common_pb2.LoadReport(concurrency=1)

    async def _pass(self, batch_size: int) -> None:
        self.batch_sizes.append(batch_size)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.is_lost:
            raise unavailable("the instance died")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def instance() -> GatedInstance:
    return GatedInstance()


@pytest.fixture
def queue(instance: GatedInstance, clock: FakeClock) -> InstanceQueue:
    return queue_of(instance, clock, max_batch_size=4, max_queue_size=6)


def queue_of(
    instance: GatedInstance,
    clock: FakeClock,
    limit: FixedLimit | GradientLimit | None = None,
    **knobs: object,
) -> InstanceQueue:
    section = BatchingSection(default=KnobsSection.model_validate(knobs))
    return InstanceQueue(instance, limit or FixedLimit(1), KnobTable(section), clock)


def submit(
    queue: InstanceQueue,
    text: str = "x",
    tenant: str = "a",
    priority: int = NORMAL,
    model: str = "m",
    deadline_s: float = 600.0,
) -> asyncio.Task[Answer]:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
    call = Call(Principal(tenant), priority, deadline_s=deadline_s)
    return asyncio.create_task(queue.submit(task, model, call, SIZE))


async def run_until_blocked(clock: FakeClock) -> None:
    """Let every task run until it waits for the gate, another task or the time."""
    await clock.advance(0)


async def test_an_idle_instance_is_used_at_once_and_waiting_requests_are_grouped(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    tasks = [submit(queue) for _ in range(5)]
    await run_until_blocked(clock)
    assert instance.batch_sizes == [1]
    instance.gate.set()
    answers = await asyncio.gather(*tasks)
    assert instance.batch_sizes == [1, 4]
    assert [answer.receipt.batch_size for answer in answers] == [1, 4, 4, 4, 4]
    assert answers[0].receipt.release_reason == "instance_free"
    assert answers[1].receipt.release_reason == "full"


async def test_a_bad_request_spoils_no_other_of_its_batch(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    first = submit(queue)
    await run_until_blocked(clock)
    good, bad = submit(queue), submit(queue, "bad")
    await run_until_blocked(clock)
    instance.gate.set()
    await asyncio.gather(first, good)
    with pytest.raises(Fault) as caught:
        await bad
    assert caught.value.field == "task.embed.texts[0]"


async def test_a_cancelled_request_leaves_the_queue_or_frees_its_slot(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    running, waiting, other = submit(queue), submit(queue), submit(queue)
    await run_until_blocked(clock)
    waiting.cancel()
    running.cancel()
    await run_until_blocked(clock)
    assert instance.batch_sizes == [1, 1], "the freed slot went to the request that still waits"
    assert instance.cancelled == 1
    instance.gate.set()
    assert (await other).receipt.batch_size == 1


async def test_a_batch_runs_until_its_last_caller_has_left(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    first = submit(queue)
    await run_until_blocked(clock)
    batch = [submit(queue) for _ in range(3)]
    await run_until_blocked(clock)
    first.cancel()
    await run_until_blocked(clock)
    assert (instance.batch_sizes, instance.cancelled) == ([1, 3], 1)
    batch[0].cancel()
    await run_until_blocked(clock)
    assert (queue.running, instance.cancelled) == (1, 1)
    for task in batch[1:]:
        task.cancel()
    await run_until_blocked(clock)
    assert (queue.running, instance.cancelled) == (0, 2)


async def test_nothing_is_learned_from_a_cancelled_batch(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    task = submit(queue)
    await run_until_blocked(clock)
    task.cancel()
    await run_until_blocked(clock)
    assert instance.cancelled == 1
    assert not any(cost.samples for cost in queue.costs.values())


async def test_requests_of_a_lost_instance_fail_as_retryable(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    instance.is_lost = True
    tasks = [submit(queue) for _ in range(3)]
    await run_until_blocked(clock)
    instance.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, Fault)]
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 3


async def test_a_full_queue_drops_from_the_longest_flow(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    loud = [submit(queue, tenant="loud") for _ in range(7)]
    await run_until_blocked(clock)
    quiet = submit(queue, tenant="quiet")
    another = submit(queue, tenant="loud")
    await run_until_blocked(clock)
    instance.gate.set()
    outcomes = await asyncio.gather(*loud, quiet, another, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
    assert [fault.reason for fault in refused] == ["QUEUE_FULL", "QUEUE_FULL"]
    assert all(fault.retry_after_s > 0 for fault in refused)
    assert isinstance(quiet.result(), Answer)


async def test_a_class_has_its_own_limit_inside_the_models(
    instance: GatedInstance, clock: FakeClock
) -> None:
    low_policy = {"low": QueuePolicySection(max_queue_size=2)}
    queue = queue_of(instance, clock, max_queue_size=4, queue_policies=low_policy)
    running = submit(queue)
    await run_until_blocked(clock)
    low = [submit(queue, priority=LOW) for _ in range(3)]
    await run_until_blocked(clock)
    assert queue.waiting.count("m", LOW) == 2
    assert low[2].done(), "the class is full although the queue is not"
    urgent = [submit(queue, priority=CRITICAL) for _ in range(3)]
    await run_until_blocked(clock)
    assert queue.waiting.count("m", LOW) == 1, "the tenant's low requests are the longest flow"
    assert queue.waiting.count("m", CRITICAL) == 3
    instance.gate.set()
    outcomes = await asyncio.gather(running, *low, *urgent, return_exceptions=True)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Fault)]
    assert reasons == ["QUEUE_FULL"] * 2
    assert all(isinstance(task.result(), Answer) for task in urgent)


async def test_a_full_queue_of_one_model_refuses_no_other_model(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock, max_queue_size=2)
    tasks = [submit(queue, model=model) for model in ("m", "m", "m", "m", "n")]
    await run_until_blocked(clock)
    instance.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, True, True, False, True]


async def test_a_predicted_late_answer_is_refused(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock)
    await learn_high_cost(queue, instance)
    with pytest.raises(Fault, match="predicted") as caught:
        await submit(queue, deadline_s=1.0)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("newcomer", [{"priority": CRITICAL}, {"tenant": "quiet"}])
async def test_only_what_is_served_before_a_request_counts_as_its_wait(
    instance: GatedInstance, clock: FakeClock, newcomer: dict[str, Any]
) -> None:
    queue = queue_of(instance, clock)
    await learn_high_cost(queue, instance)
    instance.gate.clear()
    ahead = [submit(queue) for _ in range(6)]
    await run_until_blocked(clock)
    with pytest.raises(Fault, match="predicted"):
        await submit(queue, deadline_s=10.0)
    admitted = submit(queue, deadline_s=10.0, **newcomer)
    await run_until_blocked(clock)
    assert not admitted.done()
    instance.gate.set()
    await asyncio.gather(*ahead, admitted)


async def test_an_idle_instance_is_tried_again_so_that_a_wrong_cost_corrects_itself(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock)
    await learn_high_cost(queue, instance)
    wrong_ms = queue.costs["m"].predict_ms(1, 10)
    await clock.advance(TRUSTED_FOR_S)
    answer = await submit(queue, deadline_s=clock.monotonic() + 1.0)
    assert answer.receipt.batch_size == 1
    assert queue.costs["m"].predict_ms(1, 10) < wrong_ms


async def test_a_busy_instance_is_not_tried_for_a_late_request(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock)
    await learn_high_cost(queue, instance)
    instance.gate.clear()
    running = submit(queue)
    await run_until_blocked(clock)
    await clock.advance(TRUSTED_FOR_S)
    with pytest.raises(Fault, match="predicted"):
        await submit(queue, deadline_s=clock.monotonic() + 1.0)
    instance.gate.set()
    await running


async def learn_high_cost(queue: InstanceQueue, instance: GatedInstance) -> None:
    """Open the gate, and make the queue believe that a request takes 2 s."""
    instance.gate.set()
    for _ in range(TRUSTED_SAMPLES):
        await submit(queue)
    for _ in range(50):
        queue.costs["m"].learn(1, 10, 2_000.0)


async def test_a_deadline_that_expires_in_the_queue_fails_that_request_alone(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock)
    first, late, patient = submit(queue), submit(queue, deadline_s=5.0), submit(queue)
    await clock.advance(10)
    instance.gate.set()
    await asyncio.gather(first, patient)
    with pytest.raises(Fault, match="deadline expired in the batcher queue") as caught:
        await late
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_closing_returns_what_waits_and_finishes_what_runs(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    running, waiting = submit(queue), submit(queue)
    await run_until_blocked(clock)
    assert queue.close() == 1
    instance.gate.set()
    await queue.wait_idle()
    assert isinstance(await running, Answer)
    for refused in (waiting, submit(queue)):
        with pytest.raises(Fault) as caught:
            await refused
        assert caught.value.reason == "INSTANCE_LEAVING"


async def test_a_streams_slot_is_its_callers_until_it_leaves(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    instance.gate.set()
    async with queue.stream_slot(TASK, "m", Call(deadline_s=60.0), SIZE) as receipt:
        waiting = submit(queue)
        await run_until_blocked(clock)
        assert receipt.batch_size == 1
        assert queue.running == 1
        assert not waiting.done()
    assert (await waiting).receipt.batch_size == 1


async def test_a_cancelled_stream_gives_its_slot_back(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> None:
    instance.gate.set()

    async def stream() -> None:
        async with queue.stream_slot(TASK, "m", Call(deadline_s=60.0), SIZE):
            await asyncio.Event().wait()

    running, waiting = asyncio.create_task(stream()), asyncio.create_task(stream())
    await run_until_blocked(clock)
    waiting.cancel()
    running.cancel()
    await run_until_blocked(clock)
    assert isinstance(await submit(queue), Answer)


async def test_an_overload_fault_of_a_stream_cuts_a_learned_limit(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock, GradientLimit(8))
    assert queue.limit.limit == 8
    with pytest.raises(Fault):
        async with queue.stream_slot(TASK, "m", Call(deadline_s=60.0), SIZE):
            raise unavailable("529")
    assert queue.limit.limit == 5


def test_a_learned_limit_rises_while_delays_are_steady_and_falls_when_they_grow() -> None:
    limit = GradientLimit(5)
    for _ in range(200):
        limit.record_delay(10.0, limit.limit)
    assert limit.limit > 20
    high = limit.limit
    for _ in range(30):
        limit.record_delay(100.0, limit.limit)
    assert limit.limit < min(high, 60)


async def test_overload_faults_of_a_batch_cut_a_learned_limit_once(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock, GradientLimit(8), max_batch_size=4)
    running = [submit(queue) for _ in range(8)]
    await run_until_blocked(clock)
    waiting = [submit(queue, text) for text in ("x", "limited", "limited")]
    await run_until_blocked(clock)
    instance.gate.set()
    outcomes = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert instance.batch_sizes == [*[1] * 8, 3]
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [*[True] * 9, False, False]
    assert queue.limit.limit == 5


async def test_a_queue_timeout_rejects_or_postpones(
    instance: GatedInstance, clock: FakeClock
) -> None:
    policies = {
        "normal": QueuePolicySection(
            default_timeout_microseconds=1_000_000, timeout_action="delay"
        ),
        "low": QueuePolicySection(default_timeout_microseconds=1_000_000),
    }
    queue = queue_of(instance, clock, max_batch_size=1, queue_policies=policies)
    order: list[str] = []

    def submit_named(name: str, priority: int) -> asyncio.Task[Answer]:
        task = submit(queue, tenant=name, priority=priority)
        task.add_done_callback(lambda done: done.exception() or order.append(name))
        return task

    first = submit_named("first", NORMAL)
    await run_until_blocked(clock)
    old, rejected = submit_named("old", NORMAL), submit_named("rejected", LOW)
    await clock.advance(2)
    young = submit_named("young", NORMAL)
    await run_until_blocked(clock)
    instance.gate.set()
    await asyncio.gather(first, old, young)
    assert order == ["first", "young", "old"]
    with pytest.raises(Fault) as caught:
        await rejected
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_batch_is_kept_open_where_more_are_likely_and_nothing_urgent_waits(
    instance: GatedInstance, clock: FakeClock
) -> None:
    one_second = 1_000_000
    queue = queue_of(instance, clock, max_queue_delay_microseconds=one_second, max_batch_size=8)
    alone = submit(queue)
    await run_until_blocked(clock)
    assert instance.batch_sizes == [1], "without earlier arrivals no other is to be expected"
    instance.gate.set()
    await alone
    for _ in range(60):
        await clock.advance(0.0001)
        await submit(queue, priority=CRITICAL)
    instance.batch_sizes.clear()
    for _ in range(50):
        queue.costs["m"].learn(1, 10, 8.0)
        queue.costs["m"].learn(8, 10, 8.0)
    kept_open = submit(queue)
    await run_until_blocked(clock)
    assert instance.batch_sizes == [], "arrivals are frequent and a batch has a fixed cost"
    urgent = submit(queue, priority=CRITICAL)
    await run_until_blocked(clock)
    assert instance.batch_sizes == [2], "urgent requests are not delayed"
    await asyncio.gather(kept_open, urgent)


async def test_a_batch_that_overruns_its_time_makes_the_next_one_smaller(
    instance: GatedInstance, clock: FakeClock
) -> None:
    queue = queue_of(instance, clock, max_batch_size=8, max_batch_ms=10.0)
    overrunning = await start_batch(queue, instance, clock)
    assert instance.batch_sizes[-1] == 8
    await clock.advance(0.040)
    instance.gate.set()
    await asyncio.gather(*overrunning)
    instance.gate.clear()
    after = await start_batch(queue, instance, clock)
    assert instance.batch_sizes[-1] < 8
    instance.gate.set()
    await asyncio.gather(*after)


async def start_batch(
    queue: InstanceQueue, instance: GatedInstance, clock: FakeClock
) -> list[asyncio.Task[Answer]]:
    """Let eight requests wait behind one, then cancel that one so that they are grouped."""
    first = submit(queue)
    await run_until_blocked(clock)
    waiting = [submit(queue) for _ in range(8)]
    await run_until_blocked(clock)
    first.cancel()
    await run_until_blocked(clock)
    return waiting
