"""An instance of the simulation: each computation has a number of its own, by which an answer is
recognised wherever it is delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import OK, Fault, to_item_status, unavailable
from penstock.simulation.fault_plan import FaultPlan
from penstock.testkit.instance import EmptyInstance

OUTPUT_TOKENS = 6
PIECES = 3
BAD_ENDS = (
    pb.FINISH_REASON_LENGTH,
    pb.FINISH_REASON_FILTERED,
    pb.FINISH_REASON_REFUSED,
    pb.FINISH_REASON_STOP,
)
"""Ends of answers that must not be kept; the last stands for one that was not confirmed."""


def tokens_of(text: str) -> int:
    """Tokens of one computation."""
    return len(text) // 8 + OUTPUT_TOKENS


@dataclass(frozen=True)
class Computed:
    """One computation: for whom, of what, and whether its answer may be given again."""

    organisation: str
    text: str
    tokens: int
    may_be_kept: bool


@dataclass
class Computations:
    """All computations of a run, by number."""

    by_number: dict[int, Computed] = field(default_factory=dict)

    def add(self, computed: Computed) -> int:
        """Note a computation; returns its number."""
        number = len(self.by_number) + 1
        self.by_number[number] = computed
        return number


class ScriptedInstance(EmptyInstance):
    """Answers `number|text`, at the pace and with the failures that the plan draws."""

    def __init__(self, name: str, plan: FaultPlan, computations: Computations) -> None:
        self._name, self._plan, self._computations = name, plan, computations
        self._ends: Random = plan.rng(f"{name} ends")

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        return pb.ComputeResponse(result=await self._compute(request.task, call))

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """See InferenceService."""
        result = await self._compute(request.task, call)
        content = result.generate.message.content
        step = len(content) // PIECES + 1
        for at in range(0, len(content), step):
            chunk = pb.GenerateChunk(delta=content[at : at + step])
            yield pb.ComputeStreamResponse(chunk=chunk)
            await asyncio.sleep(0.002)
        yield pb.ComputeStreamResponse(result=result)

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        """See InferenceService."""
        now_s = asyncio.get_running_loop().time()
        for index, member in enumerate(request.members):
            answer = pb.MemberResult(index=index, status=OK)
            try:
                served = Call.from_context(member.context, now_s)
                answer.result.CopyFrom(await self._compute(member.task, served))
            except Fault as fault:
                answer.status.CopyFrom(to_item_status(fault))
            yield pb.ComputeBatchResponse(results=[answer])

    async def _compute(self, task: pb.Task, call: Call) -> pb.TaskResult:
        drawn = self._plan.draw(f"{self._name}.compute", ("delay", "fail", "hang"))
        await asyncio.sleep(drawn.latency_s * 4 + drawn.seconds)
        if drawn.kind == "fail":
            raise unavailable("the instance fails")
        text = task.generate.messages[-1].content
        result = pb.TaskResult(revision="1", compute_ms=1.0)
        result.usage.output_tokens = OUTPUT_TOKENS
        result.usage.input_tokens = tokens_of(text) - OUTPUT_TOKENS
        is_bad = self._ends.random() < 0.15
        answer = result.generate
        answer.finish_reason = self._ends.choice(BAD_ENDS) if is_bad else pb.FINISH_REASON_STOP
        answer.unconfirmed = is_bad and answer.finish_reason == pb.FINISH_REASON_STOP
        tokens = tokens_of(text)
        number = self._computations.add(
            Computed(call.principal.organisation, text, tokens, not is_bad)
        )
        answer.message.role = pb.ROLE_ASSISTANT
        answer.message.content = f"{number}|{text}"
        return result
