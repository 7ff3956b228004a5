"""`generate` on a local decoder: the task's fields to sampling, pieces to the answer.

In a thread; whose, `runner` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized import classification as policy
from penstock.inference_onnx_quantized.classification import TextLimits
from penstock.inference_onnx_quantized.compute_threads import Cancelled
from penstock.inference_onnx_quantized.repository import LoadedModel
from penstock.onnx.decoder import Decoder, Sampling
from penstock.onnx.session import BadInput
from penstock.rpc.errors import invalid

EmitChunk = Callable[[pb.GenerateChunk], object]
REASONS = {
    "": pb.FINISH_REASON_UNSPECIFIED,
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
}
UNSERVED = ("tools", "response_schema_json", "tool_choice")


def discard_chunk(chunk: pb.GenerateChunk) -> None:
    """Where nobody watches the pieces."""


def answer(
    loaded: LoadedModel,
    task: pb.GenerateTask,
    limits: TextLimits,
    cancelled: Cancelled,
    result: pb.TaskResult,
    show: EmitChunk,
) -> None:
    """Generate into `result`; each piece goes to `show` as soon as it is there.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
        RunCancelled: `cancelled` said so between two tokens.
    """
    model = _decoder(loaded)
    sampling = _sampling(task)
    prompt = _prompt(model, task.messages, limits)
    result.usage.input_tokens = len(prompt)
    said: list[str] = []
    try:
        for piece in model.generate(prompt, sampling, cancelled):
            said.append(piece.text)
            result.usage.output_tokens = piece.tokens
            result.generate.finish_reason = REASONS[piece.ended]
            if piece.text or piece.ended:
                show(pb.GenerateChunk(delta=piece.text, finish_reason=REASONS[piece.ended]))
    except BadInput as error:
        raise invalid("task.generate.messages", str(error)) from None
    result.generate.message.role = "assistant"
    result.generate.message.content = "".join(said)


def _decoder(loaded: LoadedModel) -> Decoder:
    if not isinstance(loaded.model, Decoder):
        raise invalid("task", f"{loaded.card.name} does not generate")
    return loaded.model


def _sampling(task: pb.GenerateTask) -> Sampling:
    for field in UNSERVED:
        if getattr(task, field) and not (
            field == "tool_choice" and task.tool_choice in ("auto", "none")
        ):
            raise invalid(
                f"task.generate.{field}", "is not served by a local decoder; an upstream does"
            )
    temperature = task.temperature if task.HasField("temperature") else 0.0
    top_p = task.top_p if task.HasField("top_p") else 1.0
    problem = policy.check_sampling(task.max_tokens, temperature, top_p, task.stop)
    if problem is not None:
        raise invalid(problem.field, problem.message)
    seed = task.seed if task.HasField("seed") else None
    return Sampling(task.max_tokens, temperature, top_p, seed, tuple(task.stop))


def _prompt(model: Decoder, messages: Sequence[pb.Message], limits: TextLimits) -> list[int]:
    if not messages:
        raise invalid("task.generate.messages", "needs at least one message")
    for index, message in enumerate(messages):
        field = f"task.generate.messages[{index}]"
        if message.tool_calls or message.tool_call_id:
            raise invalid(
                field, "has tool calls, which a local decoder does not serve; an upstream does"
            )
        size = len(message.content.encode("utf-8", "surrogatepass"))
        if size > limits.max_text_bytes:
            raise invalid(
                f"{field}.content", f"has {size} bytes; at most {limits.max_text_bytes} are allowed"
            )
    try:
        prompt = model.encode([(message.role, message.content) for message in messages])
    except BadInput as error:
        raise invalid("task.generate.messages", str(error)) from None
    if not 0 < len(prompt) < limits.max_tokens:
        raise invalid(
            "task.generate.messages",
            f"have {len(prompt)} tokens; the model takes 1 to {limits.max_tokens - 1}",
        )
    return prompt
