"""A generated answer as one piece, and the texts of conversations, for code that serves both whole
and streamed answers.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2


def whole_chunk(answer: inference_pb2.GenerateResult) -> inference_pb2.GenerateChunk:
    """A whole answer as the only piece of a stream."""
    message = answer.message
    chunk = inference_pb2.GenerateChunk(
        delta=message.content,
        refusal=message.refusal,
        finish_reason=answer.finish_reason,
        stop_reason=answer.stop_reason,
        stop_sequence=answer.stop_sequence,
        logprobs=answer.logprobs,
        extra_json=message.extra_json,
    )
    for index, call in enumerate(message.tool_calls):
        chunk.tool_calls.add(
            index=index,
            id=call.id,
            name=call.name,
            arguments_json=call.arguments_json,
            extra_json=call.extra_json,
        )
    for index, block in enumerate(message.reasoning):
        chunk.reasoning.add(
            index=index,
            text=block.text,
            state=block.state,
            format=block.format,
            position=block.position,
        )
    return chunk


def text_of(message: inference_pb2.Message) -> str:
    """The text of a turn, whether it is one text or the text parts of several."""
    if not message.parts:
        return message.content
    return "\n".join(part.text for part in message.parts if part.HasField("text"))
