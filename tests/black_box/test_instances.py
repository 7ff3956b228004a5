"""Which instances there are: registration, draining, ejection, score board, the first of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Caller, chat, refused
from .instance import Asked, Refuse, Serve, echo, prompt_of, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def test_a_draining_instance_finishes_and_gets_nothing_new(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on, api = asyncio.Event(), caller.api

    async def slow(asked: Asked) -> Pieces:
        if prompt_of(asked) == "slow":
            await go_on.wait()
        yield said("done")

    async with serve(slow, model) as leaving:
        running = asyncio.create_task(caller.generate(chat("slow"), model=model, cache=BYPASS))
        await eventually(lambda: len(leaving.asked) == 1)
        drain = pb.DrainRequest(instance_id=leaving.name)
        answer = await api.registry.Drain(drain, metadata=api.token)
        assert (answer.in_flight, answer.state) == (1, pb.INSTANCE_STATE_DRAINING)
        told = await refused(caller.generate(chat("new"), model=model, cache=BYPASS))
        assert (told.code, told.reason) == ("UNAVAILABLE", "NO_INSTANCE")
        assert told.retry_s is not None
        assert told.retry_s > 0
        go_on.set()
        assert (await running).result.message.content == "done"


async def test_drain_and_heartbeat_of_a_stranger(caller: Caller) -> None:
    registry, token = caller.api.registry, caller.api.token
    told = await refused(registry.Drain(pb.DrainRequest(instance_id="x-1"), metadata=token))
    assert (told.code, told.field) == ("NOT_FOUND", "instance_id")
    answer = await registry.Heartbeat(pb.HeartbeatRequest(instance_id="x-1"), metadata=token)
    assert answer == pb.HeartbeatResponse(register_again=True, state=pb.INSTANCE_STATE_LOST)


@pytest.mark.parametrize(
    ("instance", "field"),
    [
        (pb.Instance(address="127.0.0.1:1"), "instance.id"),
        (pb.Instance(id="x"), "instance.address"),
        (pb.Instance(id="x" * 129, address="127.0.0.1:1"), "instance.id"),
        (pb.Instance(id="x", address="nowhere"), "instance.address"),
        (pb.Instance(id="x", address="h:1", batcher_address="h:"), "instance.batcher_address"),
        (pb.Instance(id="x", address="h:1", concurrency=1 << 20), "instance.concurrency"),
        (pb.Instance(id="x", address="h:1", microusd_per_hour=-1), "instance.microusd_per_hour"),
        (
            pb.Instance(id="x", address="h:1", models=[inference_pb2.Model()]),
            "instance.models[0].name",
        ),
        (
            pb.Instance(id="x", address="h:1", models=[inference_pb2.Model(name="m")] * 2),
            "instance.models[1].name",
        ),
    ],
)
async def test_a_bad_registration_is_named(
    caller: Caller, instance: pb.Instance, field: str
) -> None:
    request = pb.RegisterRequest(instance=instance)
    told = await refused(caller.api.registry.Register(request, metadata=caller.api.token))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", field)


async def test_three_failures_in_a_row_eject_an_instance_and_the_last_one_is_asked_all_the_same(
    caller: Caller, model: str, serve: Serve
) -> None:
    failed: list[Asked] = []

    async def script(asked: Asked) -> Pieces:
        if len(failed) < 3:
            failed.append(asked)
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
        yield said("well again")

    async with serve(script, model) as instance:
        for _ in range(3):
            await refused(caller.generate(chat("x"), model=model, cache=BYPASS))
        row = (await board(caller, model))[0]
        assert (row.candidate.state, row.failures) == (pb.INSTANCE_STATE_EJECTED, 3)

        async def back() -> str:
            answer = await caller.generate(chat("again"), model=model, cache=BYPASS)
            return answer.receipt.route.instance_id

        again = await eventually(back, not_yet=(grpc.aio.AioRpcError,))
        assert again == instance.name


@pytest.mark.parametrize(
    ("code", "reason", "failures"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED", 1),
        (grpc.StatusCode.INTERNAL, "", 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 0),
        (grpc.StatusCode.INVALID_ARGUMENT, "", 0),
        (grpc.StatusCode.FAILED_PRECONDITION, "", 0),
    ],
)
async def test_what_speaks_against_an_instance_is_counted_there(
    caller: Caller,
    model: str,
    serve: Serve,
    code: grpc.StatusCode,
    reason: str,
    failures: int,
) -> None:
    async def script(asked: Asked) -> Pieces:
        raise Refuse(code, reason)
        yield  # makes it a generator

    async with serve(script, model):
        told = await refused(caller.generate(chat("x"), model=model, cache=BYPASS))
        assert told.code == code.name
        (row,) = await board(caller, model)
    assert (row.picks, row.failures) == (1, failures)


async def board(caller: Caller, model: str) -> Sequence[pb.ScoreboardRow]:
    request = pb.GetScoreboardRequest(model=model)
    answer = await caller.api.router.GetScoreboard(request, metadata=caller.metadata)
    assert answer.strategy == "least_added_delay"
    return answer.rows


async def test_the_score_board_shows_each_instance_with_its_signals(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model, concurrency=4, zone="z-1") as instance:
        for number in range(3):
            await caller.generate(chat(f"x {number}"), model=model, cache=BYPASS)
        (row,) = await board(caller, model)
        assert (row.instance.id, row.instance.zone) == (instance.name, "z-1")
        assert (row.picks, row.failures, row.in_flight) == (3, 0, 0)
        assert row.candidate.state == pb.INSTANCE_STATE_READY
        assert row.candidate.score > 0
        signals = {signal.name: signal for signal in row.candidate.signals}
        assert list(signals) == ["in_flight_own", "in_flight_others", "speed", "concurrency"]
        assert (signals["in_flight_own"].value, signals["concurrency"].value) == (0, 4)
        assert signals["speed"].value > 0
        assert signals["concurrency"].age_ms >= 0


async def test_a_call_for_a_model_that_scales_from_zero_waits_for_its_first_instance(
    caller: Caller, serve: Serve
) -> None:
    """The scaler looks after the model `idle`, which nobody serves."""
    waiting = asyncio.create_task(caller.generate(chat("first"), model="idle", cache=BYPASS))
    api = caller.api

    async def seen() -> bool:
        answer = await api.registry.ListFleets(pb.ListFleetsRequest(), metadata=api.token)
        fleets = await api.registry.ListFleets(
            pb.ListFleetsRequest(scaled=["idle"]), metadata=api.token
        )
        assert answer.fleets
        return any(row.model == "idle" and row.waiting == 1 for row in fleets.fleets)

    await eventually(seen)
    async with serve(echo, "idle"):
        answer = await waiting
        assert answer.result.message.content == "first"
        assert "waited for the first instance" in answer.receipt.notes
