"""Started runs by the Python client and by `penstock runs`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import router_pb2
from penstock.cli.command import penstock
from penstock.client import Busy, Penstock

from .calls import Caller, chat
from .configuration import secret_of
from .instance import Serve, echo

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
