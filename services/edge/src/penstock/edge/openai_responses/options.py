"""How the model is to answer: length, sampling, reasoning, form. Pure: JSON in, task fields out."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    dumped,
    list_at,
    name,
    number,
    object_at,
    required,
    text,
    whole,
    word,
)
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure
from penstock.tasks.generate import EFFORTS

MAX_TOKENS = 2**31 - 1
FORMS = {
    "text": pb.RESPONSE_FORMAT_KIND_TEXT,
    "json_object": pb.RESPONSE_FORMAT_KIND_JSON_OBJECT,
    "json_schema": pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
}
ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


@pure
def put_options(task: pb.GenerateTask, body: Json) -> None:
    """Set the task's options.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    task.max_tokens = whole(body.get("max_output_tokens"), "max_output_tokens", 1, MAX_TOKENS) or 0
    temperature = number(body.get("temperature"), "temperature", 0, 2)
    if temperature is not None:
        task.temperature = temperature
    top_p = number(body.get("top_p"), "top_p", 0, 1)
    if top_p is not None:
        task.top_p = top_p
    if whole(body.get("top_logprobs"), "top_logprobs", 0, 20):
        raise unsupported("top_logprobs", "log-probabilities are not available; leave it out")
    reasoning = object_at(body.get("reasoning"), "reasoning")
    task.reasoning.effort = word(reasoning.get("effort"), "reasoning.effort", EFFORTS[1:])
    _put_form(task, object_at(body.get("text"), "text"))


@pure
def included(body: Json) -> frozenset[str]:
    """What of `include` the answer shall have.

    Raises:
        BadRequest: it names what cannot be had.
    """
    wanted = frozenset(
        name(each, f"include[{index}]")
        for index, each in enumerate(list_at(body.get("include"), "include"))
    )
    if LOGPROBS in wanted:
        raise unsupported("include", f"{LOGPROBS!r} is not available; leave it out")
    return wanted


def _put_form(task: pb.GenerateTask, said: Json) -> None:
    at = "text.format"
    form = object_at(said.get("format"), at)
    if not form:
        return
    kind = word(required(form.get("type"), f"{at}.type"), f"{at}.type", tuple(FORMS))
    asked = task.response_format
    asked.kind = FORMS[kind]
    if kind == "json_schema":
        schema = object_at(required(form.get("schema"), f"{at}.schema"), f"{at}.schema")
        asked.schema_json = dumped(schema)
        asked.name = name(form.get("name"), f"{at}.name")
        asked.description = text(form.get("description"), f"{at}.description")
        asked.strict = bool(form.get("strict"))
