"""500 jobs while routers and the batcher, or the cells of both, are killed at random: none is lost,
each ends exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.registration import Registrar
from penstock.service.free_ports import free_addresses
from penstock.service.settings import ServiceSettings
from penstock.service.socket_paths import socket_folder
from penstock.service.store import embedded_store, open_store
from penstock.stack.process import Child, Program, python_module
from penstock.stack.shapes import SHAPES, Shape
from penstock.stack.workers import Workers
from penstock.testkit.instance import EmptyInstance

TOKEN, KEY, MODEL = "token-of-the-fault-test", "psk-fault", "sleeper"
METADATA = (("authorization", f"Bearer {KEY}"),)
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
JOBS = 500
KILLS = 8
WORK_S = 0.15
"""Long enough that slots are taken at every kill: one between jobs proves nothing."""


class Sleeper(EmptyInstance):
    """Answers after a while."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        await asyncio.sleep(WORK_S)
        result = inference_pb2.TaskResult(revision="1")
        result.embed.embeddings.add(values=[float(len(request.task.embed.texts[0]))])
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        for index, member in enumerate(request.members):
            answer = await self.Compute(inference_pb2.ComputeRequest(task=member.task), call)
            response = inference_pb2.ComputeBatchResponse()
            response.results.add(index=index, result=answer.result).status.SetInParent()
            yield response


@dataclass(frozen=True)
class Routers:
    """Programs that may be killed, and the addresses at which their routers are called."""

    programs: Sequence[Program]
    addresses: Sequence[str]


def routers_in(shape: Shape, folder: Path, redis_url: str) -> Routers:
    """Two routers and their batcher, or two cells of both behind one address."""
    first, second, batcher = free_addresses(3)
    config = folder / "penstock.yaml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config.write_text(f"keys: {{api: [{{id: fault, sha256: {digest}, organisation: acme}}]}}\n")
    shared = {
        "PENSTOCK_INTERNAL_TOKEN": TOKEN,
        "PENSTOCK_LEDGER_URL": redis_url,
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_OTLP_ENDPOINT": "",
        "PENSTOCK_LOG_LEVEL": "error",
        "PENSTOCK_JOB_LEASE_MS": "1000",
        "PENSTOCK_DEFAULT_MODEL": MODEL,
        "PENSTOCK_JOB_ATTEMPTS": "50",
    }
    if shape == "cell":
        listens = {"PENSTOCK_ROUTER_LISTEN": first, "PENSTOCK_BATCHER_LISTEN": batcher}
        command = (*python_module("penstock.stack"), "cell", "router,batcher")
        cells = Workers(2, folder).programs(Program("cell", command, {**shared, **listens}))
        return Routers(cells, (first, first))
    of_router = {**shared, "PENSTOCK_BATCHER_ADDRESS": batcher}
    module = python_module("penstock.router")
    return Routers(
        (
            Program(
                "batcher",
                python_module("penstock.batcher"),
                {**shared, "PENSTOCK_LISTEN": batcher},
                batcher,
            ),
            Program("router-1", module, {**of_router, "PENSTOCK_LISTEN": first}, first),
            Program("router-2", module, {**of_router, "PENSTOCK_LISTEN": second}, second),
        ),
        (first, second),
    )


@contextlib.asynccontextmanager
async def instances(routers: str) -> AsyncIterator[None]:
    model = inference_pb2.Model(
        name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=[inference_pb2.TASK_KIND_EMBED]
    )
    async with contextlib.AsyncExitStack() as owned:
        for number in range(3):
            server = GrpcServer(
                "sleeper",
                ServiceSettings(listen="127.0.0.1:0"),
                [Endpoint(INFERENCE, Sleeper(), internal(TOKEN))],
            )
            await server.start()
            owned.push_async_callback(server.stop, None)
            instance = pb.Instance(
                id=f"s{number}", address=server.address, models=[model], concurrency=8
            )
            registrar = Registrar(routers, instance, TOKEN)
            registrar.start()
            owned.push_async_callback(registrar.leave)
        yield


async def answering(address: str) -> None:
    """Wait until a program listens: one that is killed while it starts interrupts nothing."""
    host, _, port = address.partition(":")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                if host == "unix":
                    _, writer = await asyncio.open_unix_connection(port)
                else:
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.05)


async def ask(
    stubs: list[router_pb2_grpc.RouterServiceStub], method: str, request: object
) -> object:
    """Ask whichever router answers; gives up after half a minute."""
    async with asyncio.timeout(30):
        turn = 0
        while True:
            turn += 1
            try:
                return await getattr(stubs[turn % len(stubs)], method)(
                    request, metadata=METADATA, timeout=3
                )
            except grpc.aio.AioRpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise
                await asyncio.sleep(0.05)


@pytest.mark.chaos
@pytest.mark.parametrize("shape", SHAPES)
async def test_no_job_is_lost_and_each_ends_once(tmp_path: Path, shape: Shape) -> None:
    rng = Random(5)
    async with contextlib.AsyncExitStack() as owned:
        url = await owned.enter_async_context(embedded_store(tmp_path / "redis"))
        folder = owned.enter_context(socket_folder())
        started = routers_in(shape, folder, url)
        plans = started.programs
        children = {plan.name: await Child.start(plan, lambda *_: None) for plan in plans}

        async def stop_all() -> None:
            for child in children.values():
                await child.stop(10)

        owned.push_async_callback(stop_all)
        routers = started.addresses
        await owned.enter_async_context(instances(",".join(routers)))
        channels = [await owned.enter_async_context(open_channel(address)) for address in routers]
        stubs = [router_pb2_grpc.RouterServiceStub(channel) for channel in channels]

        async def submit(number: int) -> str:
            task = inference_pb2.Task(
                embed=inference_pb2.EmbedTask(texts=["x" * (number % 50 + 1)])
            )
            request = pb.SubmitJobRequest(
                task=task, idempotency_token=f"job-{number}", deadline_ms=120_000
            )
            return (await ask(stubs, "SubmitJob", request)).job.id  # type: ignore[attr-defined]

        async def submit_and_kill(numbers: range) -> list[str]:
            """Kill one of the programs while these jobs come in and are served."""
            plan = rng.choice(plans)
            await answering(plan.address)
            submitting = asyncio.gather(*(submit(number) for number in numbers))
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            children[plan.name].kill()
            await children[plan.name].wait()
            children[plan.name] = await Child.start(plan, lambda *_: None)
            return await submitting

        names: list[str] = []
        for turn in range(KILLS):
            names += await submit_and_kill(range(turn * JOBS // KILLS, (turn + 1) * JOBS // KILLS))

        store = open_store(url)
        owned.push_async_callback(store.aclose)
        async with asyncio.timeout(90):
            while True:
                jobs = [
                    (await ask(stubs, "GetJob", pb.GetJobRequest(id=name))).job for name in names
                ]  # type: ignore[attr-defined]
                if all(job.ended_unix_ms for job in jobs):
                    break
                await asyncio.sleep(0.5)
        ends = [
            int(await store.hget(f"penstock:{{jobs}}:job:{name}", "ends") or 0) for name in names
        ]
        left = await store.xlen("penstock:{jobs}:queue")
    assert len(set(names)) == JOBS
    jobs_lost = sum(job.state != pb.JOB_STATE_SUCCEEDED for job in jobs)
    assert jobs_lost == 0, {job.status.message for job in jobs}
    assert ends == [1] * JOBS
    assert left == 0
    assert [job.result.embed.embeddings[0].values[0] for job in jobs] == [
        number % 50 + 1 for number in range(JOBS)
    ]
    assert max(job.attempts for job in jobs) > 1, "nothing was interrupted, so nothing was proven"
