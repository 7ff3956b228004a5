"""Plays recorded answers into a wire, in whatever pieces, and says what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.adapters import WIRES
from penstock.inference_upstream.protocols.wire import Target
from penstock.inference_upstream.providers import NAMED
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.tasks.kinds import GENERATE
from penstock.testkit.recordings import Recording

TASK = pb.GenerateTask(
    messages=[pb.Message(role=pb.ROLE_USER, content="go")],
    tools=[pb.Tool(name="read", read_only=True)],
)
"""The question that every recording answers."""
MAX_TEMPERATURE = 2.0


class Played(NamedTuple):
    """What came out: a result, or a fault."""

    result: pb.TaskResult | None = None
    chunks: tuple[pb.GenerateChunk, ...] = ()
    fault: Fault | None = None

    @property
    def is_kept(self) -> bool:
        """Whether a cache may keep the answer."""
        if self.result is None:
            return False
        task = pb.Task(generate=TASK)
        return not GENERATE.unstorable_because(task, self.result, MAX_TEMPERATURE, asked_for=True)

    @property
    def is_internal(self) -> bool:
        """Whether it failed by an error of ours."""
        return self.fault is not None and self.fault.reason == Reason.INTERNAL

    def same_as(self, other: Played) -> bool:
        """Whether both came to the same, whatever the pieces."""
        if self.result is None or other.result is None:
            faults = [each.fault.reason if each.fault else None for each in (self, other)]
            return faults[0] == faults[1]
        return self.result == other.result


def target_for(provider: str) -> Target:
    """A model of a known provider."""
    return Target("model", NAMED[provider].switches)


def play(recording: Recording, pieces: Iterable[bytes]) -> Played:
    """Play a streamed answer piece by piece. An exception that is no Fault becomes INTERNAL, as it
    would at a service's port.
    """
    chunks: list[pb.GenerateChunk] = []
    wire, target = WIRES[recording.wire], target_for(recording.provider)  # type: ignore[index]
    try:
        stream = wire.stream(TASK, target)
        for piece in pieces:
            chunks += stream.feed(piece)
            if stream.is_done:
                break
        last_chunks, result = stream.end()
    except Fault as fault:
        return Played(fault=fault, chunks=tuple(chunks))
    except Exception as error:
        return Played(fault=Fault(Reason.INTERNAL, repr(error)), chunks=tuple(chunks))
    return Played(result, (*chunks, *last_chunks))


def read(recording: Recording, body: bytes) -> Played:
    """Read a whole answer."""
    wire, target = WIRES[recording.wire], target_for(recording.provider)  # type: ignore[index]
    try:
        return Played(wire.parse(body, TASK, target))
    except Fault as fault:
        return Played(fault=fault)
    except Exception as error:
        return Played(fault=Fault(Reason.INTERNAL, repr(error)))


def played(recording: Recording) -> Played:
    """A recording, read or played at once."""
    if recording.is_stream:
        return play(recording, [recording.body])
    return read(recording, recording.body)


def outcome(came: Played) -> dict[str, Any]:
    """What came out, in the words of a recording's `expect`."""
    if came.fault is not None:
        return {"reason": str(came.fault.reason), "retry_after_s": came.fault.retry_after_s}
    assert came.result is not None
    answer, usage = came.result.generate, came.result.usage
    message = answer.message
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.written_input_tokens,
        usage.reasoning_tokens,
    )
    return {
        "text": message.content,
        "refusal": message.refusal,
        "reasoning": [
            [block.format, block.text, block.state.decode(), block.position]
            for block in message.reasoning
        ],
        "calls": [[call.id, call.name, call.arguments_json] for call in message.tool_calls],
        "extras": [call.extra_json for call in message.tool_calls],
        "logprobs": [_scored(row) for row in answer.logprobs],
        "finish": pb.FinishReason.Name(answer.finish_reason).removeprefix("FINISH_REASON_"),
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "unconfirmed": answer.unconfirmed,
        "usage": "estimated" if usage.estimated else list(counts),
        "revision": came.result.revision,
        "kept": came.is_kept,
    }


def _scored(row: pb.TokenLogprob) -> list[Any]:
    chosen = row.chosen
    others = [[each.token, each.logprob] for each in row.alternatives]
    return [chosen.token, chosen.logprob, chosen.utf8.hex(), others]


def differences(recording: Recording, came: Played) -> list[str]:
    """What came out other than expected; a message of chunks that are not the answer too."""
    got = outcome(came)
    expect: Mapping[str, Any] = recording.expect
    wrong = [
        f"{recording}: {name} is {got.get(name)!r}, not {value!r}"
        for name, value in expect.items()
        if got.get(name) != value
    ]
    if came.result is not None and came.chunks and not _chunks_are_the_answer(came):
        wrong.append(f"{recording}: the chunks together are not the answer")
    return wrong


def _chunks_are_the_answer(came: Played) -> bool:
    """Whether chunks and result say the same; only the result says that it is unconfirmed."""
    assert came.result is not None
    whole = joined(came.chunks)
    whole.unconfirmed = came.result.generate.unconfirmed
    return whole == came.result.generate


def joined(chunks: Iterable[pb.GenerateChunk]) -> pb.GenerateResult:
    """The answer that follows from chunks alone, as a client puts them together."""
    whole = pb.GenerateResult()
    message = whole.message
    message.role = pb.ROLE_ASSISTANT
    for chunk in chunks:
        message.content += chunk.delta
        message.refusal += chunk.refusal
        whole.logprobs.extend(chunk.logprobs)
        for piece in chunk.reasoning:
            if piece.index == len(message.reasoning):
                message.reasoning.add(format=piece.format, position=piece.position)
            message.reasoning[piece.index].text += piece.text
            message.reasoning[piece.index].state += piece.state
        for part in chunk.tool_calls:
            if part.index == len(message.tool_calls):
                message.tool_calls.add(id=part.id, name=part.name)
            message.tool_calls[part.index].arguments_json += part.arguments_json
            message.tool_calls[part.index].extra_json += part.extra_json
        if chunk.finish_reason:
            whole.finish_reason = chunk.finish_reason
            whole.stop_reason, whole.stop_sequence = chunk.stop_reason, chunk.stop_sequence
            message.extra_json = chunk.extra_json
    return whole
