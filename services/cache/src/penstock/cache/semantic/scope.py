"""What must be equal before likeness may be asked about, an answer's class, and what is never kept.

Plain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.tasks.answer_keys import keyed_hash


@dataclass(frozen=True, slots=True)
class Prompt:
    """The part of a request that may differ inside a semantic scope, and the key of all the
    rest.
    """

    scope_key: str
    text: str


def prompt_of(
    secret: bytes, tenant: str, scope: pb.Scope, task: inference_pb2.Task, embedder: str
) -> Prompt | None:
    """The semantic view of a generate task whose last turn is the user's; None for anything else.

    `embedder`: name and revision of what makes the vectors, since those of another one are not
    comparable.
    """
    if task.WhichOneof("task") != "generate" or not task.generate.messages:
        return None
    last = task.generate.messages[-1]
    if last.role != "user" or not last.content.strip():
        return None
    rest = inference_pb2.GenerateTask()
    rest.CopyFrom(task.generate)
    del rest.messages[-1]
    key = keyed_hash(
        secret,
        b"scope",
        tenant.encode(),
        scope.namespace.encode(),
        scope.model.encode(),
        scope.context_sha256,
        embedder.encode(),
        rest.SerializeToString(deterministic=True),
    )
    return Prompt(key, last.content)


def canonical_answer(task: inference_pb2.Task, result: inference_pb2.TaskResult) -> str:
    """The canonical value of a closed answer: a JSON value, or tool calls by name and arguments;
    empty for free text.
    """
    message = result.generate.message
    if message.tool_calls:
        calls = [[call.name, _json(call.arguments_json or "{}")] for call in message.tool_calls]
        return "" if any(value is None for _, value in calls) else _canonical(["tool", calls])
    value = _json(message.content)
    closed = bool(task.generate.response_schema_json) or isinstance(value, dict | list)
    return _canonical(["json", value]) if closed and value is not None else ""


def refusal_reason(
    task: inference_pb2.Task,
    result: inference_pb2.TaskResult,
    max_temperature: float,
    *,
    asked_for: bool,
) -> str:
    """Why an answer must not be kept; empty where it may."""
    if task.WhichOneof("task") != "generate":
        return ""
    asked, answer = task.generate, result.generate
    if answer.finish_reason == inference_pb2.FINISH_REASON_LENGTH:
        return "truncated"
    if answer.finish_reason == inference_pb2.FINISH_REASON_FILTERED:
        return "filtered"
    if answer.finish_reason == inference_pb2.FINISH_REASON_UNSPECIFIED:
        return "not ended"
    harmless = {tool.name for tool in asked.tools if tool.read_only}
    if any(call.name not in harmless for call in answer.message.tool_calls):
        return "tool call with side effects"
    if asked.HasField("temperature") and asked.temperature > max_temperature and not asked_for:
        return "temperature"
    return ""


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
