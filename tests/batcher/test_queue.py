"""The queue on an instance that is told when to answer: grouping, handoffs, cancels, deaths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.batch_formation import CostModel
from penstock.batcher.queue import SURE_SAMPLES, TRY_AGAIN_S, InstanceQueue, Member, Served
from penstock.batcher.settings import KnobsSection, QueuePolicySection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import OK, Fault, exhausted, invalid, to_item_status, unavailable
from penstock.testkit.clock import FakeClock

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))


class Held:
    """An instance that answers when released; texts decide members' fates."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.release = asyncio.Event()
        self.dies = False
        self.cancelled = 0

    async def run(
        self, model: str, members: Sequence[Member]
    ) -> AsyncIterator[tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]]:
        self.batches.append(len(members))
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.dies:
            raise unavailable("the instance died")
        for index, member in enumerate(members):
            faults = {
                "bad": invalid("task.embed.texts[0]", "is bad"),
                "limited": exhausted("too much", retry_after_s=1.0),
            }
            fault = faults.get(member.task.embed.texts[0])
            status = to_item_status(fault) if fault else OK
            yield (
                index,
                inference_pb2.MemberResult(index=index, status=status),
                common_pb2.LoadReport(concurrency=1),
            )


@pytest.fixture
def instance() -> Held:
    return Held()


@pytest.fixture
def queue(instance: Held) -> InstanceQueue:
    return InstanceQueue(
        instance, 1, {"": KnobsSection(max_batch_size=4, max_queue_size=6)}, FakeClock()
    )


def submit(
    queue: InstanceQueue, text: str = "x", tenant: str = "a", deadline_s: float = 60.0
) -> asyncio.Task[Served]:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
    call = Call(Principal(tenant), deadline_s=deadline_s)
    return asyncio.create_task(queue.submit(task, "m", call, (1, 10)))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_idle_instance_is_used_at_once_and_what_waits_is_grouped(
    queue: InstanceQueue, instance: Held
) -> None:
    tasks = [submit(queue) for _ in range(5)]
    await settle()
    assert instance.batches == [1]
    instance.release.set()
    served = await asyncio.gather(*tasks)
    assert instance.batches == [1, 4]
    assert [item.receipt.batch_size for item in served] == [1, 4, 4, 4, 4]
    assert served[0].receipt.release_reason == "instance_free"
    assert served[1].receipt.release_reason == "full"


async def test_a_bad_member_spoils_nobody_else(queue: InstanceQueue, instance: Held) -> None:
    first = submit(queue)
    await settle()
    good, bad = submit(queue), submit(queue, "bad")
    await settle()
    instance.release.set()
    await asyncio.gather(first, good)
    with pytest.raises(Fault) as caught:
        await bad
    assert caught.value.field == "task.embed.texts[0]"


async def test_a_cancelled_member_leaves_the_queue_and_the_batch(
    queue: InstanceQueue, instance: Held
) -> None:
    running, waiting, other = submit(queue), submit(queue), submit(queue)
    await settle()
    for task in (waiting, running):
        task.cancel()
    await settle()
    assert (instance.batches, instance.cancelled) == ([1, 1], 1), (
        "the instance is free at once for who still waits"
    )
    instance.release.set()
    assert (await other).receipt.batch_size == 1


async def test_a_batch_goes_on_for_whoever_is_left_and_ends_when_nobody_is(
    queue: InstanceQueue, instance: Held
) -> None:
    first = submit(queue)
    await settle()
    members = [submit(queue) for _ in range(3)]
    await settle()
    first.cancel()
    await settle()
    assert (instance.batches, instance.cancelled) == ([1, 3], 1)
    members[0].cancel()
    await settle()
    assert (queue.running, instance.cancelled) == (1, 1)
    for member in members[1:]:
        member.cancel()
    await settle()
    assert (queue.running, instance.cancelled) == (0, 2)
    assert not any(cost.samples for cost in queue.costs.values()), (
        "what was broken off does not say what batches cost"
    )


async def test_an_instances_death_returns_its_members_as_retryable(
    queue: InstanceQueue, instance: Held
) -> None:
    instance.dies = True
    tasks = [submit(queue) for _ in range(3)]
    await settle()
    instance.release.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        isinstance(item, Fault) and item.code is grpc.StatusCode.UNAVAILABLE for item in outcomes
    )


async def test_a_full_queue_drops_from_the_longest_flow(
    queue: InstanceQueue, instance: Held
) -> None:
    loud = [submit(queue, tenant="loud") for _ in range(7)]
    await settle()
    quiet = submit(queue, tenant="quiet")
    another = submit(queue, tenant="loud")
    await settle()
    instance.release.set()
    outcomes = await asyncio.gather(*loud, quiet, another, return_exceptions=True)
    refused = [item for item in outcomes if isinstance(item, Fault)]
    assert [item.reason for item in refused] == ["QUEUE_FULL", "QUEUE_FULL"]
    assert all(item.retry_after_s > 0 for item in refused)
    assert isinstance(outcomes[7], Served)


async def test_each_class_has_its_own_room_and_an_urgent_newcomer_drops_its_own_less_urgent(
    instance: Held,
) -> None:
    small = {"low": QueuePolicySection(max_queue_size=2)}
    queue = InstanceQueue(
        instance, 1, {"": KnobsSection(max_queue_size=4, queue_policies=small)}, FakeClock()
    )

    def ask(priority: int) -> asyncio.Task[Served]:
        return asyncio.create_task(
            queue.submit(TASK, "m", Call(Principal("a"), priority, deadline_s=60.0), (1, 10))
        )

    running = ask(2)
    await settle()
    low = [ask(1) for _ in range(3)]
    await settle()
    assert (queue.waiting.count("m", 1), low[2].done()) == (2, True), (
        "the class is full, the queue is not"
    )
    urgent = [ask(4) for _ in range(3)]
    await settle()
    assert (queue.waiting.count("m", 1), queue.waiting.count("m", 4)) == (1, 3), (
        "its tenant's low entries are the longest flow"
    )
    instance.release.set()
    outcomes = await asyncio.gather(running, *low, *urgent, return_exceptions=True)
    assert [item.reason for item in outcomes if isinstance(item, Fault)] == ["QUEUE_FULL"] * 2
    assert all(isinstance(item, Served) for item in outcomes[4:])


async def test_a_full_queue_of_one_model_leaves_another_its_room(instance: Held) -> None:
    queue = InstanceQueue(instance, 1, {"": KnobsSection(max_queue_size=2)}, FakeClock())
    call = Call(Principal("a"), deadline_s=60.0)
    tasks = [
        asyncio.create_task(queue.submit(TASK, model, call, (1, 10)))
        for model in ("m", "m", "m", "m", "n")
    ]
    await settle()
    instance.release.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(item, Served) for item in outcomes] == [True, True, True, False, True]


async def test_what_would_be_late_is_refused_but_a_wrong_cost_is_not_for_ever(
    instance: Held,
) -> None:
    clock = FakeClock()
    queue = InstanceQueue(instance, 1, {"": KnobsSection()}, clock)
    instance.release.set()
    for _ in range(SURE_SAMPLES):
        await submit(queue)
    cost = queue.costs["m"]
    for _ in range(50):
        cost.learn(1, 10, 2_000.0)
    wrong_ms = cost.predict_ms(1, 10)
    with pytest.raises(Fault, match="predicted") as caught:
        await submit(queue, deadline_s=1.0)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await clock.advance(TRY_AGAIN_S)
    assert (await submit(queue, deadline_s=clock.monotonic() + 1.0)).receipt.batch_size == 1
    assert cost.predict_ms(1, 10) < wrong_ms, "it was tried, and the cost corrected"
    instance.release.clear()
    running = submit(queue)
    await settle()
    await clock.advance(TRY_AGAIN_S)
    with pytest.raises(Fault):
        await submit(queue, deadline_s=clock.monotonic() + 1.0)
    instance.release.set()
    await running


async def test_time_that_runs_out_in_the_queue_fails_that_member_alone(instance: Held) -> None:
    clock = FakeClock()
    queue = InstanceQueue(instance, 1, {"": KnobsSection()}, clock)
    first, late, patient = submit(queue), submit(queue, deadline_s=5.0), submit(queue)
    await settle()
    await clock.advance(10)
    instance.release.set()
    outcomes = await asyncio.gather(first, late, patient, return_exceptions=True)
    assert isinstance(outcomes[0], Served)
    assert isinstance(outcomes[2], Served)
    assert isinstance(outcomes[1], Fault)
    assert outcomes[1].code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_closing_returns_what_waits_and_finishes_what_runs(
    queue: InstanceQueue, instance: Held
) -> None:
    running, waiting = submit(queue), submit(queue)
    await settle()
    assert queue.close() == 1
    instance.release.set()
    await queue.drained()
    assert isinstance(await running, Served)
    with pytest.raises(Fault) as caught:
        await waiting
    assert caught.value.reason == "INSTANCE_LEAVING"
    with pytest.raises(Fault):
        await submit(queue)


async def test_a_streams_slot_is_its_callers_until_it_leaves(
    queue: InstanceQueue, instance: Held
) -> None:
    instance.release.set()
    call = Call(Principal("a"), deadline_s=60.0)
    async with queue.turn(TASK, "m", call, (1, 10)) as receipt:
        waiting = submit(queue)
        await settle()
        assert receipt.batch_size == 1
        assert not waiting.done()
        assert queue.running == 1
    assert (await waiting).receipt.batch_size == 1


async def test_a_cancelled_stream_gives_its_turn_back(queue: InstanceQueue, instance: Held) -> None:
    instance.release.set()

    async def stream() -> None:
        async with queue.turn(TASK, "m", Call(Principal("a"), deadline_s=60.0), (1, 10)):
            await asyncio.Event().wait()

    first, second = asyncio.create_task(stream()), asyncio.create_task(stream())
    await settle()
    for task in (second, first):
        task.cancel()
    await settle()
    assert isinstance(await submit(queue), Served)


async def test_overload_cuts_an_adaptive_limit_and_calm_raises_it(instance: Held) -> None:
    queue = InstanceQueue(instance, 8, {"": KnobsSection()}, FakeClock(), adaptive=True)
    assert queue.limit.limit == 8
    with pytest.raises(Fault):
        async with queue.turn(TASK, "m", Call(deadline_s=60.0), (1, 10)):
            raise unavailable("529")
    assert queue.limit.limit == 5
    for _ in range(200):
        queue.limit.finished(10.0, queue.limit.limit)
    assert queue.limit.limit > 20
    for _ in range(30):
        queue.limit.finished(100.0, queue.limit.limit)
    assert queue.limit.limit < 60


async def test_members_that_are_turned_away_cut_an_adaptive_limit_once_for_their_batch(
    instance: Held,
) -> None:
    queue = InstanceQueue(
        instance, 8, {"": KnobsSection(max_batch_size=4)}, FakeClock(), adaptive=True
    )
    running = [submit(queue) for _ in range(8)]
    await settle()
    waiting = [submit(queue, text) for text in ("x", "limited", "limited")]
    await settle()
    instance.release.set()
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert instance.batches == [*[1] * 8, 3]
    assert [isinstance(one, Served) for one in ended] == [*[True] * 9, False, False]
    assert queue.limit.limit == 5


async def test_a_queue_timeout_rejects_or_postpones(instance: Held) -> None:
    clock = FakeClock()
    policies = {
        "normal": QueuePolicySection(
            default_timeout_microseconds=1_000_000, timeout_action="delay"
        ),
        "low": QueuePolicySection(default_timeout_microseconds=1_000_000),
    }
    queue = InstanceQueue(
        instance, 1, {"": KnobsSection(max_batch_size=1, queue_policies=policies)}, clock
    )
    order: list[str] = []

    async def ask(name: str, priority: int) -> None:
        await queue.submit(TASK, "m", Call(Principal(name), priority, deadline_s=600.0), (1, 10))
        order.append(name)

    first = asyncio.create_task(ask("first", 2))
    await settle()
    old, rejected = asyncio.create_task(ask("old", 2)), asyncio.create_task(ask("rejected", 1))
    await settle()
    await clock.advance(2)
    young = asyncio.create_task(ask("young", 2))
    await settle()
    instance.release.set()
    outcomes = await asyncio.gather(first, old, young, rejected, return_exceptions=True)
    assert order == ["first", "young", "old"]
    assert isinstance(outcomes[3], Fault)
    assert outcomes[3].code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_waiting_for_company_pays_or_is_not_done(instance: Held) -> None:
    clock = FakeClock()
    knobs = KnobsSection(max_queue_delay_microseconds=2_000, max_batch_size=8)
    queue = InstanceQueue(instance, 1, {"": knobs}, clock)
    queue.costs["m"] = CostModel(8.0, 0.0)
    alone = submit(queue)
    await settle()
    assert instance.batches == [1], "nobody else has come lately: company is not to be expected"
    instance.release.set()
    await alone
    for _ in range(60):
        await clock.advance(0.0001)
        await submit_critical(queue)
    instance.batches.clear()
    waiting = submit(queue)
    await settle()
    assert instance.batches == [], "many come: a short wait saves more than it costs"
    urgent = asyncio.create_task(submit_critical(queue))
    await settle()
    assert instance.batches == [2], "critical work never waits"
    await asyncio.gather(waiting, urgent)


async def submit_critical(queue: InstanceQueue) -> Served:
    return await queue.submit(TASK, "m", Call(Principal("a"), 4, deadline_s=600.0), (1, 10))


async def test_batches_that_run_over_their_time_get_smaller(instance: Held) -> None:
    clock = FakeClock()
    queue = InstanceQueue(
        instance, 1, {"": KnobsSection(max_batch_size=8, max_batch_ms=10.0)}, clock
    )
    queue.costs["m"] = CostModel(0.0, 0.0)
    first = submit(queue)
    await settle()
    tasks = [submit(queue) for _ in range(20)]
    await settle()
    instance.release.set()
    await settle()
    await asyncio.gather(first, *tasks)
    assert instance.batches[1] == 8
    queue._row_limits.ran("m", 8, 4.0, 8)
    instance.release.clear()
    instance.batches.clear()
    first = submit(queue)
    await settle()
    tasks = [submit(queue) for _ in range(20)]
    await settle()
    instance.release.set()
    await asyncio.gather(first, *tasks)
    assert instance.batches[1] < 8
