"""Started runs by the Python client and by `penstock runs`."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from click.testing import CliRunner
from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.cli.command import penstock
from penstock.client import Busy, Penstock
from penstock.testkit.eventually import eventually

from .calls import Caller, chat
from .configuration import secret_of
from .instance import Serve, echo
from .processes import command
from .test_started_runs import BYPASS, COST, settled, small, start

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]


async def test_a_client_starts_runs_and_children_and_learns_what_is_left(
    caller: Caller, model: str, serve: Serve
) -> None:
    bypass = router_pb2.CallOptions(cache=router_pb2.CachePolicy(bypass=True))
    address = caller.api.system.addresses["router"]
    async with serve(echo, model), Penstock(address, secret_of(caller.key)) as client:
        root = await client.start_run(run_pb2.RunLimits(microusd=500), name="root")
        child = await client.start_run(run_pb2.RunLimits(microusd=10), parent=root)
        task = chat("a", max_tokens=10)
        with pytest.raises(Busy) as refused:
            await client.generate(task, model=model, run=child, options=bypass)
        assert refused.value.run is not None
        assert refused.value.run.id == child.id
        await client.raise_run(child, run_pb2.RunLimits(microusd=300))
        await client.generate(task, model=model, run=child, options=bypass)
        await client.end_run(root)
        states = {run.state for run in (await client.get_run(root)).runs}
        assert states == {run_pb2.RUN_STATE_ENDED}


async def test_the_command_starts_shows_pauses_raises_and_cancels(caller: Caller) -> None:
    address = caller.api.system.addresses["router"]

    def told(*words: str) -> str:
        flags = ("--address", address, "--key", secret_of(caller.key))
        result = CliRunner().invoke(penstock, ["runs", *words, *flags])
        assert result.exit_code == 0, result.output
        return result.output

    run_id = told("start", "nightly", "--cost", "0.25", "--calls", "40").strip()
    assert "nightly" in told("list")
    assert "paused by" in told("pause", run_id, "--reason", "lunch")
    assert "lunch" in told("show", run_id)
    assert "running" in told("raise", run_id, "--cost", "0.5")
    assert "$0.500000" in told("show", run_id)
    assert "0 calls" in told("cancel", run_id)
    assert "ancelled" in told("list")


async def test_the_commands_show_what_a_run_has_cost_and_draw_its_calls(
    caller: Caller, model: str, serve: Serve
) -> None:
    # given a run with a subagent, each with a call
    async with serve(echo, model):
        root = await start(caller)
        child = await start(caller, parent=root)
        for run_id, step in ((root, "plan"), (child, "search")):
            await caller.generate(small(), model=model, cache=BYPASS, run_id=run_id, step=step)
        await settled(caller, root, 2 * COST)
    api = caller.api
    request = telemetry_pb2.GetRunTimelineRequest(run_id=root)
    for_tenant = api.on_behalf(caller.key)

    async def timeline() -> telemetry_pb2.GetRunTimelineResponse:
        try:
            answer = await api.telemetry.GetRunTimeline(request, metadata=for_tenant)
        except grpc.aio.AioRpcError as error:  # NOT_FOUND until the first call is held
            raise AssertionError(error.details()) from None
        assert (len(answer.calls), answer.paid_microusd) == (2, 2 * COST)
        return answer

    await eventually(timeline)
    # when the commands are asked
    at = api.system.addresses
    telemetry = {"telemetry": at["telemetry"], "internal_token": api.system.token}
    router = {"address": at["router"], "key": secret_of(caller.key)}
    cost, drawn, as_json, unknown = await asyncio.gather(
        command("cli", "runs", "cost", root, **router),
        command("cli", "trace", "--run", root, **telemetry),
        command("cli", "trace", "--run", root, "--json", **telemetry),
        command("cli", "trace", "--run", "no-such-run", **telemetry),
    )
    # then both are told apart
    assert cost.status == 0, cost.errors
    for word in ("plan", "search", "answer", model, "$0.000013", "$0.000026 in all"):
        assert word in cost.output
    assert drawn.status == 0, drawn.errors
    assert max(map(len, drawn.output.splitlines())) <= 80
    for word in ("plan", f"{child[-4:]}:search", "Generate", "bypassed", "2 calls in"):
        assert word in drawn.output
    shown = json.loads(as_json.output)
    assert [(row["run_id"], row["step"]) for row in shown["calls"]] == [
        (root, "plan"),
        (child, "search"),
    ]
    assert shown["paid_microusd"] == str(2 * COST)
    assert unknown.status == 1
    assert "run_id: no call of such a run is held" in unknown.errors
