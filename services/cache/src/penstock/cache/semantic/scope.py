"""How the semantic cache sees a request and its answer.

A semantic scope is all that must be equal for answers to be reused by similarity: tenant,
namespace, model, context digest, embedder, and the whole request except its last user turn. Only
that last turn may differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.semantic.declared_answers import declared_answers
from penstock.tasks.answer_keys import keyed_hash
from penstock.tasks.kinds import kind_of

JSON_KINDS = (
    inference_pb2.RESPONSE_FORMAT_KIND_JSON_OBJECT,
    inference_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The last user turn of a request, and the key of the semantic scope that the rest makes.

    `answers` are those that the request's schema allows; empty where it lists none.
    """

    scope_key: str
    text: str
    answers: tuple[str, ...] = ()


def prompt_of(
    secret: bytes, tenant: str, scope: pb.Scope, task: inference_pb2.Task, embedder: str
) -> Prompt | None:
    """The prompt of a task; None where its answers are not reused by similarity.

    `embedder` is its name and revision: vectors of different embedders cannot be compared.
    """
    part = kind_of(task).similar_part(task)
    if part is None:
        return None
    key = keyed_hash(
        secret,
        b"scope",
        tenant.encode(),
        scope.namespace.encode(),
        scope.model.encode(),
        scope.context_sha256,
        embedder.encode(),
        part.rest,
    )
    return Prompt(key, part.text, declared_answers(task.generate.response_format.schema_json))


def canonical_answer(task: inference_pb2.Task, result: inference_pb2.TaskResult) -> str:
    """The canonical form of a closed answer, equal for equal answers; empty for free text.

    Closed answers are JSON values, and tool calls with their names and arguments.
    """
    message = result.generate.message
    if message.tool_calls:
        calls = [[call.name, _parsed(call.arguments_json or "{}")] for call in message.tool_calls]
        if any(arguments is None for _, arguments in calls):
            return ""
        return _canonical_json(["tool", calls])
    value = _parsed(message.content)
    is_closed = task.generate.response_format.kind in JSON_KINDS or isinstance(value, dict | list)
    if value is None or not is_closed:
        return ""
    return _canonical_json(["json", value])


def _parsed(text: str) -> object:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
