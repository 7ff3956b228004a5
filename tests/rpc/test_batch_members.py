"""The members of a batch: each with its own deadline, fate and result."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import grpc
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.batch_members import serve_members
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import invalid
from penstock.service.clock import SystemClock

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
CLOCK = SystemClock()


class ScriptedCompute:
    """Computes by a member's text: `bad` is refused, `stuck` never ends, others are echoed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.callers: list[str] = []

    async def __call__(self, task: pb.Task, call: Call) -> pb.TaskResult:
        text = task.embed.texts[0]
        self.started.append(text)
        self.callers.append(call.principal.organisation)
        if text == "bad":
            raise invalid("task.embed.texts[0]", "is bad")
        if text == "stuck":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(text)
                raise
        return pb.TaskResult(revision=text)


def member(text: str, left_s: float = 60.0, organisation: str = "acme") -> pb.BatchMember:
    now = CLOCK.monotonic()
    call = Call(Principal(organisation), deadline_s=now + left_s)
    task = pb.Task(embed=pb.EmbedTask(texts=[text]))
    return pb.BatchMember(task=task, context=call.to_context(now))


async def served(
    members: Sequence[pb.BatchMember], compute: ScriptedCompute
) -> dict[int, pb.MemberResult]:
    return {result.index: result async for result in serve_members(members, compute, CLOCK)}


async def test_each_member_gets_its_own_result_or_status() -> None:
    results = await served([member("one"), member("bad"), member("two")], ScriptedCompute())
    codes = {index: result.status.code for index, result in results.items()}
    assert codes == {0: 0, 1: INVALID_ARGUMENT, 2: 0}
    assert results[1].status.field == "task.embed.texts[0]"
    assert (results[0].result.revision, results[2].result.revision) == ("one", "two")


async def test_each_member_is_computed_for_its_own_caller() -> None:
    compute = ScriptedCompute()
    members = [member("one", organisation="acme"), member("two", organisation="globex")]
    await served(members, compute)
    assert sorted(compute.callers) == ["acme", "globex"]


async def test_a_member_that_runs_out_of_time_ends_alone() -> None:
    compute = ScriptedCompute()
    results = await served([member("stuck", left_s=0.05), member("one")], compute)
    assert results[0].status.code == DEADLINE_EXCEEDED
    assert results[1].status.code == 0
    assert compute.cancelled == ["stuck"]


async def test_a_member_whose_deadline_has_passed_is_not_computed() -> None:
    compute = ScriptedCompute()
    results = await served([member("late", left_s=-1.0), member("one")], compute)
    assert results[0].status.code == DEADLINE_EXCEEDED
    assert compute.started == ["one"]


async def test_a_member_without_a_deadline_is_computed() -> None:
    results = await served([member("one", left_s=math.inf)], ScriptedCompute())
    assert results[0].status.code == 0


async def test_a_result_does_not_wait_for_slower_members() -> None:
    results = serve_members([member("stuck"), member("one")], ScriptedCompute(), CLOCK)
    assert (await anext(results)).index == 1
    await results.aclose()


async def test_closing_cancels_the_members_that_still_run() -> None:
    compute = ScriptedCompute()
    results = serve_members([member("stuck"), member("one")], compute, CLOCK)
    await anext(results)
    await results.aclose()
    assert compute.cancelled == ["stuck"]
