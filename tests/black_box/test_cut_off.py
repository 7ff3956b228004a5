"""A router in the production profile whose store, limiter, cache and telemetry are away: what goes
on, what is refused, and what receipts say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.testkit.eventually import eventually

from . import instance as instances
from .calls import TIMEOUT_S, chat, options, refused
from .configuration import secret_of
from .instance import Asked, Refuse, ScriptedInstance, echo
from .system import System, running_cut_off

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
METADATA = (("authorization", f"Bearer {secret_of('tenant-000')}"),)
MODEL = "model-005"


class Router:
    """One router of the cut-off system with an instance behind it."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.channel = grpc.aio.insecure_channel(system.addresses[name])
        self.stub = router_pb2_grpc.RouterServiceStub(self.channel)
        self.registry = router_pb2_grpc.RegistryServiceStub(self.channel)
        self.instance = ScriptedInstance(echo, f"behind-{name}")

    def serving(self, instance: ScriptedInstance | None = None) -> Any:
        """Its own instance, or another one, registered for the model."""
        token = (("penstock-token", self.system.token),)
        return instances.serving(self.registry, token, instance or self.instance, MODEL)

    async def generate(self, prompt: str) -> pb.GenerateResponse:
        request = pb.GenerateRequest(task=chat(prompt), options=options(model=MODEL))
        return await self.stub.Generate(request, metadata=METADATA, timeout=TIMEOUT_S)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_cut_off(home, tmp_path_factory.mktemp("cut-off")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def router(system: System) -> AsyncIterator[Router]:
    """Calls may pass without the limiter."""
    made = Router(system, "router")
    yield made
    await made.channel.close()


@pytest_asyncio.fixture(loop_scope="session")
async def strict(system: System) -> AsyncIterator[Router]:
    """Calls may not pass without the limiter."""
    made = Router(system, "strict")
    yield made
    await made.channel.close()


async def test_calls_go_on_and_receipts_say_what_is_lost(router: Router) -> None:
    async with router.serving():

        async def all_is_said() -> common_pb2.Receipt:
            receipt = (await router.generate("hello")).receipt
            notes = "\n".join(receipt.notes)
            assert "registry not shared: the store is unavailable" in receipt.notes
            for lost in ("limiter unavailable", "cache unavailable"):
                assert lost in notes
            return receipt

        receipt = await eventually(all_is_said)
    assert receipt.cache == common_pb2.CacheReceipt(
        outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="cache unavailable"
    )
    assert receipt.cost.paid_microusd == 13


async def test_without_a_budget_for_retries_nothing_is_tried_again(router: Router) -> None:
    asked: list[Asked] = []

    async def script(one: Asked) -> AsyncIterator[inference_pb2.TaskResult]:
        asked.append(one)
        raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
        yield  # makes it a generator

    pair = [ScriptedInstance(script, f"frail-{number}") for number in range(2)]
    async with router.serving(pair[0]), router.serving(pair[1]):
        told = await refused(router.generate("hello"))
    assert (told.code, told.reason, len(asked)) == ("UNAVAILABLE", "UPSTREAM_OVERLOADED", 1)


async def test_telemetry_that_is_away_is_said_once_it_is_known(router: Router) -> None:
    async with router.serving():

        async def said() -> bool:
            notes = (await router.generate("hello")).receipt.notes
            return any("telemetry unavailable" in note for note in notes)

        await eventually(said, 20, every_s=0.2)


async def test_a_limiter_that_is_away_closes_the_strict_router(strict: Router) -> None:
    async with strict.serving() as instance:
        told = await refused(strict.generate("hello"))
        assert told.code == "UNAVAILABLE"
        assert told.retry_s == 1.0
        assert "limiter" in told.message
        assert not instance.asked


async def test_jobs_need_the_store(router: Router, strict: Router) -> None:
    task = inference_pb2.Task(generate=chat("x"))
    request = pb.SubmitJobRequest(task=task, options=options(model=MODEL))
    for one, retry_s in ((router, 1.0), (strict, None)):
        told = await refused(one.stub.SubmitJob(request, metadata=METADATA, timeout=TIMEOUT_S))
        assert (told.code, told.reason, told.retry_s) == ("UNAVAILABLE", "NO_STORE", retry_s)


async def test_production_shows_no_reflection(router: Router) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(router.channel)
    call = stub.ServerReflectionInfo()
    assert (await refused(call.read())).code == "UNIMPLEMENTED"


async def test_an_instance_whose_heart_has_stopped_is_lost_and_may_come_back(
    router: Router,
) -> None:
    """Without a heartbeat for three seconds nothing is sent to it."""
    row = pb.Instance(id="quiet", address="127.0.0.1:1", concurrency=1)
    row.models.add(name="quiet-model", state=inference_pb2.MODEL_STATE_READY)
    token = (("penstock-token", router.system.token),)
    lease = await router.registry.Register(pb.RegisterRequest(instance=row), metadata=token)
    assert lease == pb.RegisterResponse(heartbeat_interval_ms=1_000, lease_ms=3_000)
    beat = pb.HeartbeatRequest(instance_id="quiet")

    async def state() -> int:
        request = pb.GetScoreboardRequest(model="quiet-model")
        board = await router.stub.GetScoreboard(request, metadata=METADATA)
        return board.rows[0].candidate.state

    assert await state() == pb.INSTANCE_STATE_JOINING

    async def lost() -> bool:
        return await state() == pb.INSTANCE_STATE_LOST

    await eventually(lost, every_s=0.1)
    request = pb.GenerateRequest(task=chat("x"), options=options(model="quiet-model"))
    told = await refused(router.stub.Generate(request, metadata=METADATA, timeout=TIMEOUT_S))
    assert (told.code, told.reason) == ("UNAVAILABLE", "NO_INSTANCE")
    answer = await router.registry.Heartbeat(beat, metadata=token)
    assert not answer.register_again
    assert await state() == pb.INSTANCE_STATE_JOINING
    await router.registry.Drain(
        pb.DrainRequest(instance_id="quiet", deregister=True), metadata=token
    )
