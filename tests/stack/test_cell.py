"""A cell as `make up` runs it: router, limiter, cache and batcher in one process, on their own
ports, with a store and an instance beside it.
"""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.api.batcher.v1 import batcher_pb2, batcher_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2, limiter_pb2_grpc
from penstock.rpc.auth import CONTEXT_KEY, TOKEN_KEY
from penstock.rpc.call import Call, Principal
from penstock.rpc.peers.stream import open_channel
from penstock.stack.shapes import CELL
from penstock.testkit.eventually import eventually
from running_cells import MODEL, TOKEN, WIDE, Running, running, until_served

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("cell"), workers=1) as cells:
        yield cells


@pytest_asyncio.fixture(loop_scope="module")
async def cell(started: Running) -> Running:
    """The cell, serving: the test before may have ended its process."""
    await until_served(started)
    return started


async def test_a_call_passes_all_four_services_of_one_process(cell: Running) -> None:
    first, second = await cell.embed("hello"), await cell.embed("hello")
    assert first.receipt.batch.batch_size == 1
    assert first.receipt.cache.outcome == common_pb2.CACHE_OUTCOME_MISS
    assert second.receipt.cache.outcome == common_pb2.CACHE_OUTCOME_EXACT_HIT
    assert not first.receipt.notes


@pytest.mark.parametrize("service", [name for name in CELL if name != "edge"])
async def test_each_service_keeps_its_port_and_its_health(cell: Running, service: str) -> None:
    async with open_channel(cell.plan.addresses[service]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_edge_keeps_its_port(cell: Running) -> None:
    address = f"http://{cell.plan.addresses['edge']}/healthz"
    with await asyncio.to_thread(urllib.request.urlopen, address) as answer:
        assert answer.status == 200


async def test_an_internal_port_still_asks_for_the_token(cell: Running) -> None:
    async with open_channel(cell.plan.addresses["batcher"]) as channel:
        batcher = batcher_pb2_grpc.BatcherServiceStub(channel)
        request = batcher_pb2.ListQueuesRequest()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await batcher.ListQueues(request, timeout=5)
        answer = await batcher.ListQueues(request, metadata=((TOKEN_KEY, TOKEN),), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert [queue.instance_id for queue in answer.queues] == ["one"]


async def rules_of(cell: Running) -> list[str]:
    """The names of the limiter's rules for a caller."""
    context = Call(Principal("acme")).to_context(0.0).SerializeToString()
    metadata = ((TOKEN_KEY, TOKEN), (CONTEXT_KEY, context))
    async with open_channel(cell.plan.addresses["limiter"]) as channel:
        limiter = limiter_pb2_grpc.LimiterServiceStub(channel)
        request = limiter_pb2.GetUsageRequest(model=MODEL)
        answer = await limiter.GetUsage(request, metadata=metadata, timeout=5)
    return [usage.rule for usage in answer.rules]


async def test_sighup_reaches_every_service_and_a_bad_file_is_refused(cell: Running) -> None:
    cell.configure(("acme", "globex"), [{**WIDE, "name": "wider"}])
    cell.send(signal.SIGHUP)
    await cell.wait_for_line("configuration read again")
    assert (await cell.embed("of the new key", "psk-globex")).embeddings
    assert await rules_of(cell) == ["wider"]
    cell.plan.config_file.write_text("no_such_section: 1")
    cell.send(signal.SIGHUP)
    await cell.wait_for_line("no_such_section: unknown section")
    assert (await cell.embed("of the old file", "psk-globex")).embeddings
    cell.configure(("acme",), [WIDE])


async def test_a_file_that_one_service_refuses_is_taken_by_none(cell: Running) -> None:
    cell.configure(("acme", "initech"), [{**WIDE, "limit": "much"}])
    try:
        cell.send(signal.SIGHUP)
        await cell.wait_for_line("limits.rules.0.limit")
        assert sum("limits.rules.0.limit" in line for line in cell.lines) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cell.embed("of a key in the refused file", "psk-initech")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        cell.configure(("acme",), [WIDE])


async def test_a_cell_that_dies_is_restarted_and_serves_again(cell: Running) -> None:
    cell.send(signal.SIGKILL)
    await cell.wait_for_line("cell ended (signal 9); restarting")
    await until_served(cell)


async def test_sigterm_lets_a_call_in_flight_finish(cell: Running) -> None:
    cell.instance.started.clear()
    in_flight = asyncio.create_task(cell.embed("held until the cell stops"))
    await asyncio.wait_for(cell.instance.started.wait(), 20)
    cell.send(signal.SIGTERM)
    async with open_channel(cell.plan.addresses["router"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def refuses() -> bool:
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.aio.AioRpcError:
                return True
            return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)

        await eventually(refuses, 20)
    cell.instance.release.set()
    answer = await in_flight
    assert answer.embeddings and not answer.receipt.notes
    await cell.wait_for_line("cell ended (exit status 0)")
