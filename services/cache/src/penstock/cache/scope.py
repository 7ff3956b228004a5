"""What must be equal before anything may be reused: canonical forms, keyed hashes, an answer's class, and what is never kept. Plain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.core.call import Principal

KEY_BYTES = 16
FORMAT = b"1"
"""Version of the canonical form: a change of it leaves old entries unfound."""


def tenant_of(principal: Principal) -> str:
    """Who may share answers: callers of one organisation, team and set of tags."""
    return "\x1f".join((principal.organisation, principal.team, *sorted(principal.tags)))


def keyed(secret: bytes, *parts: bytes) -> str:
    """BLAKE2b under a secret, over parts of unambiguous length, so that keys cannot be guessed across tenants."""
    digest = hashlib.blake2b(key=secret[:64], digest_size=KEY_BYTES)
    for part in (FORMAT, *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def exact_key(secret: bytes, tenant: str, scope: pb.Scope, task: inference_pb2.Task) -> str:
    """The key of a request: everything that the answer may depend on."""
    return keyed(
        secret, tenant.encode(), scope.namespace.encode(), scope.model.encode(), scope.context_sha256,
        task.SerializeToString(deterministic=True),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prompt:
    """The part of a request that may differ inside a semantic scope, and the key of all the rest."""

    scope_key: str
    text: str


def prompt_of(secret: bytes, tenant: str, scope: pb.Scope, task: inference_pb2.Task, embedder: str) -> Prompt | None:
    """The semantic view of a generate task whose last turn is the user's; None for anything else."""
    if task.WhichOneof("task") != "generate" or not task.generate.messages:
        return None
    last = task.generate.messages[-1]
    if last.role != "user" or not last.content.strip():
        return None
    rest = inference_pb2.GenerateTask()
    rest.CopyFrom(task.generate)
    del rest.messages[-1]
    key = keyed(
        secret, b"scope", tenant.encode(), scope.namespace.encode(), scope.model.encode(), scope.context_sha256,
        embedder.encode(), rest.SerializeToString(deterministic=True),
    )  # fmt: skip
    return Prompt(key, last.content)


def answer_class(task: inference_pb2.Task, result: inference_pb2.TaskResult) -> str:
    """The canonical value of a closed answer: a JSON value, or tool calls by name and arguments; empty for free text."""
    message = result.generate.message
    if message.tool_calls:
        calls = [[call.name, _json(call.arguments_json or "{}")] for call in message.tool_calls]
        return "" if any(value is None for _, value in calls) else _canonical(["tool", calls])
    value = _json(message.content)
    closed = bool(task.generate.response_schema_json) or isinstance(value, dict | list)
    return _canonical(["json", value]) if closed and value is not None else ""


def never_kept(
    task: inference_pb2.Task, result: inference_pb2.TaskResult, max_temperature: float, *, asked_for: bool
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
