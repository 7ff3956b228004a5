"""`generate` on a local decoder, in a compute thread: messages to a prompt, tokens to chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.compute_threads import Cancelled
from penstock.inference_onnx_quantized.repository import LoadedModel
from penstock.inference_onnx_quantized.request_checks import (
    TaskLimits,
    check_sampling,
    check_text_bytes,
)
from penstock.onnx.decoder import Decoder, Sampling
from penstock.onnx.session import BadInput
from penstock.rpc.errors import invalid
from penstock.tasks.answers import text_of
from penstock.tasks.roles import ROLE_NAMES

EmitChunk = Callable[[pb.GenerateChunk], object]
"""Takes a chunk of an answer; called in the compute thread."""
FINISH_REASONS = {
    "": pb.FINISH_REASON_UNSPECIFIED,
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
}
UNSUPPORTED_FIELDS = ("tools", "extra_json")
"""Fields that a local decoder does not serve and an upstream does."""
JSON_KINDS = (
    pb.RESPONSE_FORMAT_KIND_JSON_OBJECT,
    pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
)


def discard_chunk(chunk: pb.GenerateChunk) -> None:
    """An EmitChunk for callers that want the whole answer only."""


def generate(
    model: LoadedModel,
    task: pb.GenerateTask,
    limits: TaskLimits,
    cancelled: Cancelled,
    emit: EmitChunk,
) -> pb.TaskResult:
    """Generate an answer; each chunk goes to `emit` as soon as it is there.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
        RunCancelled: `cancelled` returned True between two tokens.
    """
    decoder = _decoder(model)
    sampling = _sampling(task)
    prompt = _prompt(decoder, task.messages, limits)
    result = pb.TaskResult()
    result.usage.input_tokens = len(prompt)
    texts: list[str] = []
    try:
        for piece in decoder.generate(prompt, sampling, cancelled):
            texts.append(piece.text)
            finish_reason = FINISH_REASONS[piece.finish_reason]
            result.usage.output_tokens = piece.tokens
            result.generate.finish_reason = finish_reason
            if piece.text or piece.finish_reason:
                emit(pb.GenerateChunk(delta=piece.text, finish_reason=finish_reason))
    except BadInput as error:
        raise invalid("task.generate.messages", str(error)) from None
    result.generate.message.role = pb.ROLE_ASSISTANT
    result.generate.message.content = "".join(texts)
    return result


def _decoder(model: LoadedModel) -> Decoder:
    if not isinstance(model.model, Decoder):
        raise invalid("task", f"model {model.card.name} does not generate text")
    return model.model


def _sampling(task: pb.GenerateTask) -> Sampling:
    """How to choose tokens; without a temperature always the most probable one."""
    for field in _unsupported_fields(task):
        raise invalid(
            f"task.generate.{field}",
            "is not served by a local decoder; choose a model of an upstream",
        )
    temperature = task.temperature if task.HasField("temperature") else 0.0
    top_p = task.top_p if task.HasField("top_p") else 1.0
    violation = check_sampling(task.max_tokens, temperature, top_p, task.stop)
    if violation is not None:
        raise invalid(violation.field, violation.message)
    seed = task.seed if task.HasField("seed") else None
    return Sampling(task.max_tokens, temperature, top_p, seed, tuple(task.stop))


def _unsupported_fields(task: pb.GenerateTask) -> Iterator[str]:
    """The names of fields that ask for what a local decoder cannot do."""
    yield from (field for field in UNSUPPORTED_FIELDS if getattr(task, field))
    if task.tool_choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED:
        yield "tool_choice"
    if task.response_format.kind in JSON_KINDS:
        yield "response_format"
    if task.HasField("top_logprobs"):
        yield "top_logprobs"


def _prompt(decoder: Decoder, messages: Sequence[pb.Message], limits: TaskLimits) -> list[int]:
    """Token ids of the conversation, which leave room for at least one token of the answer."""
    if not messages:
        raise invalid("task.generate.messages", "needs at least one message")
    for index, message in enumerate(messages):
        _check_message(message, limits, f"task.generate.messages[{index}]")
    try:
        prompt = decoder.encode(
            [(ROLE_NAMES[message.role], text_of(message)) for message in messages]
        )
    except BadInput as error:
        raise invalid("task.generate.messages", str(error)) from None
    if not 0 < len(prompt) < limits.max_tokens:
        raise invalid(
            "task.generate.messages",
            f"have {len(prompt)} tokens; the model takes 1 to {limits.max_tokens - 1}",
        )
    return prompt


def _check_message(message: pb.Message, limits: TaskLimits, field: str) -> None:
    if message.tool_calls or message.tool_call_id:
        raise invalid(
            field,
            "has tool calls, which a local decoder does not serve; choose a model of an upstream",
        )
    for index, part in enumerate(message.parts):
        if not part.HasField("text"):
            kind = part.WhichOneof("part")
            what = "is not taken by a local decoder, which reads text alone"
            raise invalid(f"{field}.parts[{index}].{kind}", what)
    violation = check_text_bytes(text_of(message), limits, f"{field}.content")
    if violation is not None:
        raise invalid(violation.field, violation.message)
