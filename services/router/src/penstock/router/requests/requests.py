"""Public requests: what must be right in them, by field, and how large they are.

Plain checks, nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.work import Work
from penstock.rpc.errors import Fault, invalid
from penstock.tasks.token_estimate import texts_tokens

MAX_TEXTS = 1024
MAX_NAME_BYTES = 128
BYTES_A_TOKEN = 4
OVERHEAD_TOKENS = 16
"""What templates put around one message or text, at most."""
PRIORITIES = frozenset(range(5))
ROLES = frozenset({"system", "user", "assistant", "tool"})


class Asked(NamedTuple):
    """One task on its way: by which options, of which model, what, and how large."""

    options: router_pb2.CallOptions
    model: str
    task: inference_pb2.Task
    work: Work
    spare_models: tuple[str, ...] = ()
    """Models to try in order when this one cannot serve."""
    reason: str = ""
    """Why this model, where the caller left it open."""
    digest: bytes = b""
    """The task's digest, where it has been made."""


def digest_of(task: inference_pb2.Task) -> bytes:
    """What tells a task from any other, 16 bytes."""
    return hashlib.blake2b(task.SerializeToString(deterministic=True), digest_size=16).digest()


def measure(model: str, task: inference_pb2.Task) -> Work:
    """A task's estimated size: rows, estimated input tokens, and the output it may cause."""
    kind = task.WhichOneof("task") or ""
    rows, parts, most = 1, 1, 0
    if kind in ("embed", "classify"):
        rows = parts = max(1, len(getattr(task, kind).texts))
    elif kind == "generate":
        parts, most = max(1, len(task.generate.messages)), task.generate.max_tokens
    bound = task.ByteSize() + OVERHEAD_TOKENS * parts
    return Work(kind, model, rows, estimate_tokens(task), most, bound)


def check_options(options: router_pb2.CallOptions) -> None:
    """Raise INVALID_ARGUMENT for the first option that cannot be."""
    if len(options.run_id) + len(options.step) + len(options.affinity_key) > MAX_NAME_BYTES // 4:
        _check_names(options)
    if options.priority not in PRIORITIES:
        raise invalid("options.priority", f"{options.priority} is not a priority; use 0 to 4")
    if options.HasField("max_cost_microusd") and options.max_cost_microusd < 0:
        raise invalid("options.max_cost_microusd", "is negative")
    if not 0 <= options.min_quality <= 1:
        raise invalid("options.min_quality", "must lie between 0 and 1")
    if options.cache.HasField("max_error_rate") and not 0 <= options.cache.max_error_rate <= 1:
        raise invalid("options.cache.max_error_rate", "must lie between 0 and 1")
    if options.cache.max_age_ms < 0:
        raise invalid("options.cache.max_age_ms", "is negative")


def _check_names(options: router_pb2.CallOptions) -> None:
    for name in ("run_id", "step", "affinity_key"):
        if len(getattr(options, name).encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            raise invalid(f"options.{name}", f"is longer than {MAX_NAME_BYTES} bytes")


def check_texts(texts: Sequence[str]) -> None:
    """Raise INVALID_ARGUMENT for the first text that cannot be."""
    if not texts:
        raise invalid("texts", "needs at least one text")
    if len(texts) > MAX_TEXTS:
        raise invalid("texts", f"has {len(texts)} texts; at most {MAX_TEXTS} are allowed")
    for index, text in enumerate(texts):
        if not text.strip():
            raise invalid(f"texts[{index}]", "is empty")


def check_generate(task: inference_pb2.GenerateTask) -> None:
    """Raise INVALID_ARGUMENT for the first thing in a conversation that cannot be."""
    if not task.messages:
        raise invalid("task.messages", "needs at least one message")
    for index, message in enumerate(task.messages):
        if message.role not in ROLES:
            raise invalid(
                f"task.messages[{index}].role",
                f"{message.role!r} is not one of {', '.join(sorted(ROLES))}",
            )
        if not message.content and not message.tool_calls and message.role != "tool":
            raise invalid(f"task.messages[{index}].content", "is empty")
        if message.role == "tool" and not message.tool_call_id:
            raise invalid(f"task.messages[{index}].tool_call_id", "is empty")
    if task.HasField("temperature") and not 0 <= task.temperature <= 2:
        raise invalid("task.temperature", "must lie between 0 and 2")
    if task.HasField("top_p") and not 0 < task.top_p <= 1:
        raise invalid("task.top_p", "must lie above 0 and at most at 1")


def check_task(task: inference_pb2.Task) -> None:
    """Raise INVALID_ARGUMENT for the first thing in a task that cannot be."""
    kind = task.WhichOneof("task")
    if kind == "embed":
        check_texts(task.embed.texts)
    elif kind == "classify":
        check_texts(task.classify.texts)
    elif kind == "generate":
        check_generate(task.generate)
    elif kind == "infer":
        if not task.infer.inputs:
            raise invalid("task.infer.inputs", "needs at least one tensor")
    else:
        raise invalid("task", "is empty")


def confidence(result: inference_pb2.TaskResult) -> float:
    """How sure the answer is of itself, 0 to 1: the least certain best label; 1 for tasks that do
    not say.
    """
    best = [item.labels[0].score for item in result.classify.classifications if item.labels]
    return min(best, default=1.0)


def estimate_tokens(task: inference_pb2.Task) -> int:
    """Input tokens for the choice of an instance and of a batch: an encoder's by words, all else
    about four bytes each.
    """
    kind = task.WhichOneof("task")
    if kind == "embed":
        return texts_tokens(task.embed.texts)
    if kind == "classify":
        return texts_tokens(task.classify.texts) + texts_tokens(
            item.text for item in task.classify.examples
        )
    if kind == "generate":
        size = sum(len(message.content) for message in task.generate.messages)
    else:
        size = sum(len(tensor.data) for tensor in task.infer.inputs)
    return max(1, size // BYTES_A_TOKEN)


def in_public_words(fault: Fault) -> Fault:
    """A fault of an instance with the field as the public request calls it: `task.embed.texts[3]`
    becomes `texts[3]`.
    """
    for inner, outer in (
        ("task.embed.", ""),
        ("task.classify.", ""),
        ("task.generate.", "task."),
        ("task.infer.", "task."),
    ):
        if fault.field.startswith(inner):
            field = outer + fault.field.removeprefix(inner)
            message = fault.message.replace(fault.field, field)
            return Fault(
                fault.code,
                message,
                reason=fault.reason,
                field=field,
                retry_after_s=fault.retry_after_s,
            )
    return fault
