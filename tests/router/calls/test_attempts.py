"""Tries of a call over real instances: which failures go elsewhere, hedges, spare models, queues
that are too long.
"""

from __future__ import annotations

import asyncio
import gc

from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.routing.fleet import Fleet
from penstock.router.settings import RouterSettings
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually

from ..rig import MODEL, Rig, fault_of
from ..routed import Routed, StartRouter
from ..scripted import Behaviour, ScriptedInstance


def fleet_of(rig: Rig) -> Fleet:
    return rig.routed.registry.fleets[MODEL]


def failures(routed: Routed) -> dict[str, int]:
    """What is held against each instance."""
    return {name: member.failures for name, member in routed.registry.members.items()}


async def test_an_instance_that_is_down_is_left_for_another(rig: Rig) -> None:
    rig.instances["a"].behaviour = Behaviour.IS_DOWN
    for _ in range(8):
        assert (await rig.embed()).receipt.route.instance_id == "b"
    assert failures(rig.routed)["a"] >= 1
    assert failures(rig.routed)["b"] == 0


async def test_what_a_failed_try_carried_is_not_kept_until_the_collector_comes_by(
    rig: Rig,
) -> None:
    await rig.embed()
    rig.instances["a"].behaviour = Behaviour.IS_FULL
    gc.collect()
    gc.disable()
    try:
        before = requests_kept()
        with rig.routed.occupied("b", requests=1):
            answer = await rig.embed()
        assert answer.receipt.route.attempts == 2
        assert requests_kept() <= before
    finally:
        gc.enable()


def requests_kept() -> int:
    return sum(isinstance(each, ResolvedRequest) for each in gc.get_objects())


async def test_what_one_queue_turns_away_another_may_take(rig: Rig) -> None:
    rig.instances["a"].behaviour = Behaviour.IS_FULL
    answers = [await rig.embed() for _ in range(8)]
    assert {answer.receipt.route.instance_id for answer in answers} == {"b"}
    assert failures(rig.routed) == {"a": 0, "b": 0}, "a full queue is no fault of its instance"
    rig.instances["b"].behaviour = Behaviour.IS_FULL
    fault = await fault_of(rig.embed())
    assert (fault.reason, fault.retry_after_s) == (Reason.QUEUE_FULL, 1.0)


async def test_an_error_of_an_instances_own_is_held_against_it_and_not_tried_again(
    rig: Rig,
) -> None:
    rig.all_do(Behaviour.IS_SICK)
    assert (await fault_of(rig.embed())).reason is Reason.INTERNAL
    assert sorted(failures(rig.routed).values()) == [0, 1]


async def test_when_all_are_down_the_caller_is_told_so(rig: Rig) -> None:
    rig.all_do(Behaviour.IS_DOWN)
    assert (await fault_of(rig.embed())).reason is Reason.UNAVAILABLE
    assert [len(instance.calls) for instance in rig.instances.values()] == [1, 1]


async def test_a_stream_that_is_cut_is_not_whole(rig: Rig) -> None:
    rig.all_do(Behaviour.CUTS_STREAMS)
    assert (await fault_of(rig.stream())).reason is Reason.STREAM_CUT


async def test_a_stream_that_has_not_begun_is_tried_elsewhere(rig: Rig) -> None:
    rig.instances["a"].behaviour = Behaviour.IS_DOWN
    for _ in range(4):
        parts = await rig.stream()
        assert parts[-1].receipt.route.instance_id == "b"


async def test_retries_are_a_share_of_the_requests(start_router: StartRouter) -> None:
    down, up = ScriptedInstance(), ScriptedInstance()
    down.behaviour = Behaviour.IS_DOWN
    settings = RouterSettings(default_model=MODEL, retry_budget=0.0)
    async with start_router(settings) as routed:
        await routed.join("down", down, MODEL)
        await routed.join("up", up, MODEL)
        rig = Rig(routed, {"down": down, "up": up})
        with routed.occupied("up", requests=1):
            assert (await fault_of(rig.embed())).reason is Reason.UNAVAILABLE
    assert up.calls == []


async def test_a_call_is_tried_on_so_many_instances_at_most(start_router: StartRouter) -> None:
    async with start_router(RouterSettings(default_model=MODEL, max_attempts=2)) as routed:
        instances = {name: ScriptedInstance() for name in "abc"}
        for name, instance in instances.items():
            instance.behaviour = Behaviour.IS_DOWN
            await routed.join(name, instance, MODEL)
        await fault_of(Rig(routed, instances).embed())
    assert sum(len(instance.calls) for instance in instances.values()) == 2


async def test_a_try_that_takes_too_long_is_ended_held_against_the_instance_and_tried_elsewhere(
    start_router: StartRouter,
) -> None:
    settings = RouterSettings(default_model=MODEL, try_deadline_ms=1_000, hedge_budget=0.0)
    async with start_router(settings) as routed:
        instances = {"slow": ScriptedInstance(), "quick": ScriptedInstance()}
        instances["slow"].behaviour = Behaviour.HANGS
        for name, instance in instances.items():
            await routed.join(name, instance, MODEL)
        rig = Rig(routed, instances)
        with routed.occupied("quick", requests=1):
            answer = await rig.embed()
        assert (answer.receipt.route.instance_id, answer.receipt.route.attempts) == ("quick", 2)
        assert failures(routed) == {"slow": 1, "quick": 0}
        rig.all_do(Behaviour.HANGS)
        assert (await fault_of(rig.embed())).reason is Reason.TRY_TIMED_OUT


async def test_a_slow_first_try_is_hedged_and_the_loser_cancelled(rig: Rig) -> None:
    rig.instances["a"].behaviour = Behaviour.HANGS
    fleet_of(rig).p95_s = 0.02
    with rig.routed.occupied("b", requests=1):
        answer = await rig.embed()
    route = answer.receipt.route
    assert (route.instance_id, route.hedged, route.attempts) == ("b", True, 2)
    await asyncio.wait_for(rig.instances["a"].cancelled.wait(), 20)
    assert rig.routed.selection.branches["hedge"] == 1


async def test_a_conversation_is_never_said_twice(rig: Rig) -> None:
    fleet_of(rig).p95_s = 0.0
    for _ in range(4):
        parts = await rig.stream()
        assert not parts[-1].receipt.route.hedged
    assert "hedge" not in rig.routed.selection.branches


async def test_an_instance_without_room_gets_no_second_tries(rig: Rig) -> None:
    rig.instances["a"].behaviour = Behaviour.HANGS
    fleet_of(rig).p95_s = 0.0
    with rig.routed.occupied("b", requests=2):
        call = asyncio.ensure_future(rig.embed())
        await asyncio.wait_for(rig.instances["a"].hanging.wait(), 20)
        await eventually(lambda: sum(rig.routed.selection.branches.values()) == 2)
        assert rig.instances["b"].calls == []
        call.cancel()
        await asyncio.wait([call])
        await asyncio.wait_for(rig.instances["a"].cancelled.wait(), 20)


async def test_a_spare_model_serves_when_the_first_cannot(rig: Rig) -> None:
    answer = await rig.embed(model="gone", fallback_models=["gone", "absent", MODEL])
    assert answer.receipt.model == MODEL
    assert [note for note in answer.receipt.notes if note.startswith("fallback")] == [
        "fallback from gone to absent: NO_MODEL",
        f"fallback from absent to {MODEL}: NO_MODEL",
    ]
    fault = await fault_of(rig.embed(model="gone", fallback_models=["absent", "gone"]))
    assert (fault.reason, fault.field) == (Reason.NO_MODEL, "options.model")


async def test_what_no_instance_is_able_to_do_is_told_at_once(rig: Rig) -> None:
    fault = await fault_of(rig.embed(required_capabilities=["vision", "audio"]))
    assert (fault.reason, fault.field) == (Reason.CANNOT_SERVE, "options")
    assert fault.message == f"options: every instance of {MODEL!r} lacks audio, vision"


async def test_a_prompt_longer_than_every_context_window_is_told_at_once(rig: Rig) -> None:
    for instance in rig.routed.registry.registered.values():
        instance.models[0].max_input_tokens = 5
    fault = await fault_of(rig.stream("x" * 8))
    assert fault.reason is Reason.CANNOT_SERVE
    assert fault.message == (
        f"options: every instance of {MODEL!r} lacks room for 6 tokens, estimated"
    )
    assert (await rig.stream("x" * 4))[-1].HasField("receipt")
    assert (await rig.embed("many words " * 50)).embeddings, "only conversations have to fit"


async def test_when_nothing_can_serve_now_the_caller_is_told_why_and_when(rig: Rig) -> None:
    await rig.embed()
    for member in rig.routed.registry.members.values():
        member.leaving, member.settled = True, False
    fault = await fault_of(rig.embed())
    assert fault.reason is Reason.NO_INSTANCE
    assert fault.message == (f"no instance can serve {MODEL!r} now (a: draining; b: draining)")
    assert fault.retry_after_s == 1.0


async def test_before_queues_grow_the_lower_classes_are_refused_first(rig: Rig) -> None:
    fleet = fleet_of(rig)
    fleet.service_s = 1.0
    fleet.forget_refresh()
    with rig.routed.occupied("a", requests=50), rig.routed.occupied("b", requests=50):
        low = rig.embed(priority=common_pb2.PRIORITY_LOW, timeout_s=50)
        fault = await fault_of(low)
        answer = await rig.embed(priority=common_pb2.PRIORITY_HIGH, timeout_s=50)
    assert fault.reason is Reason.SHED
    assert fault.message == "shed: the queue is longer than this priority may join"
    assert 0 < fault.retry_after_s <= 60
    assert answer.embeddings
    assert rig.routed.selection.branches["shed"] == 1


async def test_a_call_that_would_wait_past_its_deadline_is_refused(rig: Rig) -> None:
    fleet = fleet_of(rig)
    fleet.service_s = 1.0
    fleet.forget_refresh()
    with rig.routed.occupied("a", requests=50), rig.routed.occupied("b", requests=50):
        fault = await fault_of(rig.embed(timeout_s=2))
    assert fault.reason is Reason.SHED
    assert fault.message == "shed: the queue is longer than the time left"


async def test_an_urgent_call_is_not_refused_for_what_it_goes_before(rig: Rig) -> None:
    rig.all_do(Behaviour.HANGS)
    low = [
        asyncio.ensure_future(fault_of(rig.embed(priority=common_pb2.PRIORITY_LOW)))
        for _ in range(20)
    ]
    await eventually(lambda: sum(member.own for member in fleet_of(rig).members) == 20)
    rig.all_do(Behaviour.ANSWERS)
    fleet_of(rig).service_s = 1.0
    fleet_of(rig).forget_refresh()
    refused = await fault_of(rig.embed(priority=common_pb2.PRIORITY_LOW, timeout_s=2))
    assert refused.reason is Reason.SHED
    answer = await rig.embed(priority=common_pb2.PRIORITY_HIGH, timeout_s=2)
    assert answer.embeddings
    for each in low:
        each.cancel()
    await asyncio.wait(low)


async def test_a_cancel_of_a_run_reaches_its_calls(rig: Rig) -> None:
    rig.all_do(Behaviour.HANGS)
    calls = [asyncio.ensure_future(fault_of(rig.embed(run_id="r9"))) for _ in range(2)]
    for instance in rig.instances.values():
        await asyncio.wait_for(instance.hanging.wait(), 20)
    answer = await rig.routed.stub.CancelRun(
        pb.CancelRunRequest(run_id="r9"), metadata=rig.routed.metadata
    )
    assert answer.cancelled_calls == 2
    for instance in rig.instances.values():
        await asyncio.wait_for(instance.cancelled.wait(), 20)
    assert [fault.reason for fault in await asyncio.gather(*calls)] == [Reason.RUN_CANCELLED] * 2


async def test_a_run_has_one_deadline(rig: Rig) -> None:
    rig.all_do(Behaviour.HANGS)
    fault = await fault_of(rig.embed(run_id="r5", run_deadline_ms=80))
    assert (fault.reason, fault.message) == (Reason.RUN_DEADLINE, "the time of run r5 is up")
