"""An answer as it grows: its text, refusal, reasoning and tool calls, whichever wire it comes by.

Each method adds to the answer and returns the chunk that says the same to whoever follows the
stream, so that the chunks together are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.json_values import dumped
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.tasks.kind import BYTES_PER_TOKEN
from penstock.tasks.kinds import GENERATE

NO_ARGUMENTS = "{}"


@dataclass
class ToolCallParts:
    """A tool call as it grows. It is announced once its name is known."""

    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    is_announced: bool = False

    @property
    def arguments_json(self) -> str:
        """The arguments so far."""
        return "".join(self.arguments)


@dataclass
class ReasoningParts:
    """A block of reasoning as it grows."""

    format: str
    position: int
    texts: list[str] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)


@dataclass
class Ending:
    """How an answer ended."""

    finish_reason: pb.FinishReason
    stop_reason: str = ""
    stop_sequence: str = ""
    is_confirmed: bool = True


class GrowingAnswer:
    """See the module."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.reasoning: list[ReasoningParts] = []
        self.tool_calls: list[ToolCallParts] = []
        self.logprobs: list[pb.TokenLogprob] = []
        self.extra: dict[str, Any] = {}

    def add_text(self, text: str) -> pb.GenerateChunk:
        """More text."""
        self.texts.append(text)
        return pb.GenerateChunk(delta=text)

    def add_refusal(self, text: str) -> pb.GenerateChunk:
        """More of a refusal."""
        self.refusals.append(text)
        return pb.GenerateChunk(refusal=text)

    def add_logprobs(self, logprobs: Sequence[pb.TokenLogprob]) -> pb.GenerateChunk:
        """Log-probabilities of further tokens."""
        self.logprobs.extend(logprobs)
        return pb.GenerateChunk(logprobs=logprobs)

    def position(self) -> int:
        """Where in the turn a block of reasoning that begins now would stand."""
        return bool(self.texts) + len(self.tool_calls)

    def add_reasoning(
        self, block: int, kind: str, text: str = "", state: bytes = b""
    ) -> pb.GenerateChunk:
        """More of a block of reasoning; the block is opened where it is the next one."""
        delta = pb.ReasoningDelta(index=block, text=text, state=state)
        if block == len(self.reasoning):
            self.reasoning.append(ReasoningParts(kind, self.position()))
            delta.format, delta.position = kind, self.position()
        parts = self.reasoning[block]
        parts.texts.append(text)
        parts.states.append(state)
        return pb.GenerateChunk(reasoning=[delta])

    def open_tool_call(self) -> ToolCallParts:
        """The next tool call."""
        call = ToolCallParts(len(self.tool_calls))
        self.tool_calls.append(call)
        return call

    def add_arguments(self, call: ToolCallParts, arguments: str) -> pb.GenerateChunk | None:
        """More arguments of a tool call; None while its name is not known."""
        if arguments:
            call.arguments.append(arguments)
        if not call.name:
            return None
        delta = pb.ToolCallDelta(index=call.index, arguments_json=arguments)
        if not call.is_announced:
            call.is_announced = True
            delta.id, delta.name = call.id, call.name
            delta.arguments_json = call.arguments_json
        elif not arguments:
            return None
        return pb.GenerateChunk(tool_calls=[delta])

    def result(self, ending: Ending, revision: str) -> pb.TaskResult:
        """The whole answer, without its usage."""
        result = pb.TaskResult(revision=revision)
        answer = result.generate
        answer.finish_reason = ending.finish_reason
        answer.stop_reason, answer.stop_sequence = ending.stop_reason, ending.stop_sequence
        answer.unconfirmed = not ending.is_confirmed
        answer.logprobs.extend(self.logprobs)
        message = answer.message
        message.role = pb.ROLE_ASSISTANT
        message.content = "".join(self.texts)
        message.refusal = "".join(self.refusals)
        message.extra_json = dumped(self.extra) if self.extra else ""
        for block in self.reasoning:
            message.reasoning.add(
                text="".join(block.texts),
                state=b"".join(block.states),
                format=block.format,
                position=block.position,
            )
        for call in self.tool_calls:
            message.tool_calls.add(
                id=call.id,
                name=call.name,
                arguments_json=call.arguments_json or NO_ARGUMENTS,
                extra_json=dumped(call.extra) if call.extra else "",
            )
        return result

    def last_chunk(self, ending: Ending) -> pb.GenerateChunk:
        """The chunk that ends the stream: why it ended, and what is known only now."""
        chunk = pb.GenerateChunk(
            finish_reason=ending.finish_reason,
            stop_reason=ending.stop_reason,
            stop_sequence=ending.stop_sequence,
            extra_json=dumped(self.extra) if self.extra else "",
        )
        for call in self.tool_calls:
            rest = "" if call.arguments else NO_ARGUMENTS
            extra = dumped(call.extra) if call.extra else ""
            if rest or extra:
                chunk.tool_calls.add(index=call.index, arguments_json=rest, extra_json=extra)
        return chunk

    def estimated_usage(self, task: pb.GenerateTask) -> common_pb2.Usage:
        """Tokens by the length of the conversation and of the answer, marked as estimated."""
        said = [*self.texts, *self.refusals]
        said += [text for block in self.reasoning for text in block.texts]
        said += [call.name + call.arguments_json for call in self.tool_calls]
        size = sum(len(text.encode()) for text in said)
        return common_pb2.Usage(
            input_tokens=GENERATE.estimate(pb.Task(generate=task)).input_tokens,
            output_tokens=-(-size // BYTES_PER_TOKEN),
            estimated=True,
        )


def cut() -> Fault:
    """The fault of a stream that ended before its answer did."""
    return unavailable("the upstream's stream was cut before its end", reason=Reason.STREAM_CUT)
