"""How the model is to answer: length, sampling, reasoning, form. Pure: JSON in, task fields out."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    list_at,
    name,
    number,
    object_at,
    whole,
    word,
)
from penstock.edge.openai_fields import flat, put_form
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure
from penstock.tasks.generate import EFFORTS

MAX_TOKENS = 2**31 - 1
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
    said = object_at(body.get("text"), "text")
    put_form(task, object_at(said.get("format"), "text.format"), "text.format", flat)


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
