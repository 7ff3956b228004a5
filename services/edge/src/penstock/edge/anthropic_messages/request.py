"""A request of `POST /v1/messages` and of `POST /v1/messages/count_tokens`. Pure: bytes in, a task
out.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.options import MAX_TOKENS, put_options
from penstock.edge.anthropic_messages.tools import put_tools
from penstock.edge.anthropic_messages.turns import system_turn, turns_of
from penstock.edge.json_fields import Json, name, object_at, required, unknown_fields, whole
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure

REFUSED = {
    "container": "runs at Anthropic; leave it out",
    "inference_geo": "cannot be promised here; leave it out",
    "mcp_servers": "are called at Anthropic; give their tools as functions",
}
"""Fields that change what is asked for and cannot be honoured."""
HONOURED = frozenset(
    {
        "cache_control",
        "max_tokens",
        "messages",
        "model",
        "output_config",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
"""Fields that have an effect. All others are hints, such as `metadata` and `service_tier`, or are
not known; they are named to the caller.
"""


@pure
def model_of(body: Json) -> str:
    """The model that is asked for."""
    return name(body.get("model"), "model")


@pure
def task_of(body: Json, *, needs_length: bool = True) -> pb.GenerateTask:
    """The conversation and how to continue it.

    Args:
        needs_length: whether `max_tokens` must be said, as it must for an answer.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    for field, problem in REFUSED.items():
        if body.get(field):
            raise unsupported(field, problem)
    max_tokens = whole(body.get("max_tokens"), "max_tokens", 1, MAX_TOKENS)
    if needs_length:
        required(max_tokens, "max_tokens")
    messages = [*system_turn(body.get("system")), *turns_of(body.get("messages"))]
    task = pb.GenerateTask(messages=messages, max_tokens=max_tokens or 0)
    put_tools(task, body)
    put_options(task, body)
    return task


@pure
def ignored_fields(body: Json) -> tuple[str, ...]:
    """The fields of the request that have no effect."""
    return tuple(unknown_fields(body, HONOURED))


@pure
def metadata_of(body: Json) -> dict[str, str]:
    """The caller's own notes, those that are texts."""
    given = object_at(body.get("metadata"), "metadata")
    return {name: value for name, value in given.items() if isinstance(value, str)}
