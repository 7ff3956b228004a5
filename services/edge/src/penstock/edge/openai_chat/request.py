"""A request of `POST /v1/chat/completions`. Pure: bytes in, what is asked out.

A field that changes what is asked for and cannot be honoured is refused; hints are taken and named
to the caller as ignored; what a hosted provider understands and the contract does not name goes to
it as it came.
"""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import (
    Json,
    boolean,
    dumped,
    list_at,
    name,
    number,
    object_at,
    parse_body,
    text,
    texts_at,
    unknown_fields,
    whole,
    word,
)
from penstock.edge.openai_chat.turns import turns_of
from penstock.edge.openai_fields import nested, put_form, put_tools
from penstock.edge.turn_content import unsupported
from penstock.edge.wire import Asked
from penstock.service.purity import pure
from penstock.tasks.generate import EFFORTS

MAX_TOKENS = 2**31 - 1
MAX_STOPS = 4
MAX_LOGPROBS = 20
REFUSED = {
    "audio": "sound is not available; leave it out",
    "functions": "is no longer taken; send tools",
    "function_call": "is no longer taken; send tool_choice",
    "web_search_options": "runs at OpenAI; give a function that searches",
}
"""Fields that change what is asked for and cannot be honoured."""
PASSED_ON = ("frequency_penalty", "presence_penalty", "logit_bias", "verbosity", "prediction")
"""Fields that go to the provider as they came, and that a model which runs here refuses."""
HONOURED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "n",
        "modalities",
        "logprobs",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        *REFUSED,
        *PASSED_ON,
    }
)


@pure
def read_request(body: bytes) -> Asked:
    """What is asked.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    fields = parse_body(body)
    _refuse(fields)
    task = pb.GenerateTask(messages=turns_of(fields.get("messages")))
    put_tools(task, fields, nested)
    _put_lengths(task, fields)
    _put_sampling(task, fields)
    at = "response_format"
    put_form(task, object_at(fields.get(at), at), at, nested)
    task.reasoning.effort = word(fields.get("reasoning_effort"), "reasoning_effort", EFFORTS[1:])
    passed = {field: fields[field] for field in PASSED_ON if fields.get(field)}
    if passed:
        task.extra_json = dumped(passed)
    streams = boolean(fields.get("stream"), "stream") or False
    options = object_at(fields.get("stream_options"), "stream_options")
    return Asked(
        task,
        name(fields.get("model"), "model"),
        streams,
        tuple(unknown_fields(fields, HONOURED)),
        bool(boolean(options.get("include_usage"), "stream_options.include_usage")),
        text(fields.get("prompt_cache_key"), "prompt_cache_key"),
        texts_at(fields.get("metadata"), "metadata"),
    )


def _refuse(fields: Json) -> None:
    for field, problem in REFUSED.items():
        if fields.get(field):
            raise unsupported(field, problem)
    if (whole(fields.get("n"), "n", 1, 128) or 1) > 1:
        raise unsupported("n", "only one answer is made; ask several times")
    if any(kind != "text" for kind in list_at(fields.get("modalities"), "modalities")):
        raise unsupported("modalities", "only text is available")


def _put_lengths(task: pb.GenerateTask, fields: Json) -> None:
    most = whole(fields.get("max_completion_tokens"), "max_completion_tokens", 1, MAX_TOKENS)
    if most is None:
        most = whole(fields.get("max_tokens"), "max_tokens", 1, MAX_TOKENS)
    task.max_tokens = most or 0
    stop: Any = fields.get("stop")
    stops = [stop] if isinstance(stop, str) else list_at(stop, "stop")
    if len(stops) > MAX_STOPS:
        raise unsupported("stop", f"at most {MAX_STOPS} texts can end an answer")
    task.stop.extend(name(each, f"stop[{index}]") for index, each in enumerate(stops))


def _put_sampling(task: pb.GenerateTask, fields: Json) -> None:
    temperature = number(fields.get("temperature"), "temperature", 0, 2)
    if temperature is not None:
        task.temperature = temperature
    top_p = number(fields.get("top_p"), "top_p", 0, 1)
    if top_p is not None:
        task.top_p = top_p
    seed = whole(fields.get("seed"), "seed", -(2**63), 2**63 - 1)
    if seed is not None:
        task.seed = seed
    alternatives = whole(fields.get("top_logprobs"), "top_logprobs", 0, MAX_LOGPROBS)
    if boolean(fields.get("logprobs"), "logprobs"):
        task.top_logprobs = alternatives or 0
    elif alternatives:
        raise unsupported("top_logprobs", "needs logprobs: true")
