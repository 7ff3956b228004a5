"""How the model is to answer: length, sampling, thinking, form. Pure: JSON in, task fields out."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.content import is_marked
from penstock.edge.json_fields import (
    Json,
    dumped,
    list_at,
    number,
    object_at,
    refused,
    required,
    text,
    whole,
    word,
)
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure

MAX_TOKENS = 2**31 - 1
MIN_THINKING_TOKENS = 1024
EFFORTS = ("low", "medium", "high", "xhigh", "max")
DEFAULT_EFFORT = "high"
"""Effort of adaptive thinking where the caller does not say one, by the protocol."""


@pure
def put_options(task: pb.GenerateTask, body: Json) -> None:
    """Set the task's options.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    temperature = number(body.get("temperature"), "temperature", 0, 1)
    if temperature is not None:
        task.temperature = temperature
    top_p = number(body.get("top_p"), "top_p", 0, 1)
    if top_p is not None:
        task.top_p = top_p
    top_k = whole(body.get("top_k"), "top_k", 0, MAX_TOKENS)
    if top_k is not None:
        task.extra_json = dumped({"top_k": top_k})
    at = "stop_sequences"
    task.stop.extend(
        text(required(each, f"{at}[{index}]"), f"{at}[{index}]")
        for index, each in enumerate(list_at(body.get(at), at))
    )
    if is_marked(body, "") and task.messages:
        task.messages[-1].cache_breakpoint = True
    _put_reasoning(task, body)


def _put_reasoning(task: pb.GenerateTask, body: Json) -> None:
    config = object_at(body.get("output_config"), "output_config")
    effort = word(config.get("effort"), "output_config.effort", EFFORTS)
    _put_form(task, object_at(config.get("format"), "output_config.format"))
    thinking = object_at(body.get("thinking"), "thinking")
    kind = text(thinking.get("type"), "thinking.type")
    if kind == "disabled":
        task.reasoning.effort = "none"
    elif kind == "enabled":
        at = "thinking.budget_tokens"
        budget = whole(thinking.get("budget_tokens"), at, MIN_THINKING_TOKENS, MAX_TOKENS)
        task.reasoning.max_tokens = required(budget, at)
        if task.max_tokens and task.reasoning.max_tokens >= task.max_tokens:
            raise refused(at, f"must be less than max_tokens, which is {task.max_tokens}")
    elif kind == "adaptive":
        task.reasoning.effort = effort or DEFAULT_EFFORT
    elif thinking:
        raise unsupported("thinking.type", f"{kind!r} is not available; choose adaptive or enabled")
    elif effort:
        task.reasoning.effort = effort


def _put_form(task: pb.GenerateTask, form: Json) -> None:
    if not form:
        return
    at = "output_config.format"
    word(required(form.get("type"), f"{at}.type"), f"{at}.type", ("json_schema",))
    schema = object_at(required(form.get("schema"), f"{at}.schema"), f"{at}.schema")
    task.response_format.kind = pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    task.response_format.schema_json = dumped(schema)
    task.response_format.strict = True
