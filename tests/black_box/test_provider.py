"""Generate and Embed through a hosted provider: what it is sent, what comes back, what it costs,
and what each of its faults means."""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.testkit.eventually import eventually

from .calls import TIMEOUT_S, Api, Caller, Counted, broken, chat, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
STOP, LENGTH = inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH


async def test_an_answer_comes_back_with_what_the_provider_reported(caller: Caller) -> None:
    # given a provider that reports 19 input tokens, 8 of them from its cache, and 6 output tokens,
    # 2 of them for reasoning
    prompt = "how deep is the reservoir, to the nearest metre, at the dam wall?"
    caller.api.system.provider.answer(
        prompt, "about ninety metres deep", cached_tokens=8, reasoning_tokens=2
    )
    # when
    answer = await caller.generate(chat(prompt), model="chat", cache=BYPASS)
    # then
    assert answer.result.message.role == inference_pb2.ROLE_ASSISTANT
    assert answer.result.message.content == "about ninety metres deep"
    assert answer.result.finish_reason == STOP
    receipt = answer.receipt
    assert receipt.usage == common_pb2.Usage(
        input_tokens=19, output_tokens=6, cached_input_tokens=8, reasoning_tokens=2
    )
    # (11 * 3 + 8 * 0.3 + 6 * 15) = 125.4 micro-dollars, rounded up; 8 * 2.7 = 21.6 saved by the
    # provider's own cache, as a direct call would have had it
    assert receipt.cost == common_pb2.Cost(
        paid_microusd=126, full_price_microusd=126, provider_saved_microusd=21
    )
    assert not receipt.savings
    assert (receipt.model, receipt.revision) == ("chat", "provider-chat")
    assert receipt.route.instance_id == "provider"
    assert receipt.cache == common_pb2.CacheReceipt(
        outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="asked to bypass"
    )


async def test_a_model_without_a_price_is_not_billed_and_says_so(caller: Caller) -> None:
    receipt = (await caller.generate(chat("hello"), model="chat-unpriced", cache=BYPASS)).receipt
    assert receipt.cost == common_pb2.Cost(estimated=True)


async def test_the_provider_is_sent_what_was_asked(caller: Caller) -> None:
    prompt = "list the gauges of the upper basin"
    task = chat(
        prompt,
        system="Answer in JSON.",
        max_tokens=40,
        temperature=0.5,
        top_p=0.25,
        seed=7,
        stop=["END"],
        response_format=inference_pb2.ResponseFormat(
            kind=inference_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
            schema_json='{"type": "array"}',
            strict=True,
        ),
        tool_choice=inference_pb2.ToolChoice(
            mode=inference_pb2.TOOL_CHOICE_MODE_REQUIRED, functions=["gauges"]
        ),
    )
    task.tools.add(name="gauges", description="Reads gauges.", parameters_json='{"type": "object"}')
    await caller.generate(task, model="chat", cache=BYPASS)
    (body,) = caller.api.system.provider.asked(prompt)
    assert body == {
        "model": "provider-chat",
        "messages": [
            {"role": "system", "content": "Answer in JSON."},
            {"role": "user", "content": prompt},
        ],
        "stream": False,
        "max_completion_tokens": 40,
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 7,
        "stop": ["END"],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "array"}, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "gauges",
                    "description": "Reads gauges.",
                    "parameters": {"type": "object"},
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "gauges"}},
    }


async def test_tool_calls_go_both_ways(caller: Caller) -> None:
    # given a provider that asks for a tool, and a conversation in which a tool has answered
    prompt = "what is the level at gauge 7"
    caller.api.system.provider.answer(
        "21", "it is 21", tool_calls=(("level", '{"gauge": 8}'),), finish_reason="tool_calls"
    )
    task = chat(prompt)
    task.tools.add(name="level", read_only=True)
    asked = task.messages.add(role=inference_pb2.ROLE_ASSISTANT)
    asked.tool_calls.add(id="c1", name="level", arguments_json='{"gauge": 7}')
    task.messages.add(role=inference_pb2.ROLE_TOOL, content="21", tool_call_id="c1")
    # when
    answer = await caller.generate(task, model="chat", cache=BYPASS)
    # then
    (call,) = answer.result.message.tool_calls
    assert call == inference_pb2.ToolCall(id="call-0", name="level", arguments_json='{"gauge": 8}')
    assert answer.result.finish_reason == inference_pb2.FINISH_REASON_TOOL_CALLS
    (body,) = [
        body for body in caller.api.system.provider.asked("21") if len(body["messages"]) == 3
    ]
    assert body["messages"][1]["tool_calls"][0]["function"] == {
        "name": "level",
        "arguments": '{"gauge": 7}',
    }
    assert body["messages"][2] == {"role": "tool", "content": "21", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [("length", LENGTH), ("content_filter", inference_pb2.FINISH_REASON_FILTERED)],
)
async def test_why_an_answer_ended_is_passed_on(caller: Caller, said: str, reason: int) -> None:
    prompt = f"an answer that ends by {said}"
    caller.api.system.provider.answer(prompt, "half of", finish_reason=said)
    answer = await caller.generate(chat(prompt), model="chat", cache=BYPASS)
    assert answer.result.finish_reason == reason


async def test_the_provider_embeds_in_the_order_of_the_texts(caller: Caller) -> None:
    both = await caller.embed("first text", "second text", model="vectors", cache=BYPASS)
    second = await caller.embed("second text", model="vectors", cache=BYPASS)
    assert len(both.embeddings) == 2
    assert both.embeddings[1] == second.embeddings[0]
    assert both.receipt.usage.input_tokens == 4
    assert both.receipt.cost.estimated


def compute(api: Api, prompt: str, model: str = "chat") -> object:
    """One task straight at the provider's service, so that nothing is tried elsewhere."""
    task = inference_pb2.Task(generate=chat(prompt))
    request = inference_pb2.ComputeRequest(model=model, task=task)
    return api.upstream.Compute(request, metadata=api.token, timeout=TIMEOUT_S)


FAULTS = [
    # fault, code, reason, when to try again in seconds (a retry-after of 2 s comes with statuses)
    ("429", "RESOURCE_EXHAUSTED", "UPSTREAM_RATE_LIMITED", 2.0),
    ("408", "UNAVAILABLE", "UPSTREAM_OVERLOADED", 2.0),
    ("409", "UNAVAILABLE", "UPSTREAM_OVERLOADED", 2.0),
    ("500", "UNAVAILABLE", "UPSTREAM_ERROR", 2.0),
    ("503", "UNAVAILABLE", "UPSTREAM_OVERLOADED", 2.0),
    ("529", "UNAVAILABLE", "UPSTREAM_OVERLOADED", 2.0),
    ("401", "FAILED_PRECONDITION", "UPSTREAM_CREDENTIALS", None),
    ("403", "FAILED_PRECONDITION", "UPSTREAM_CREDENTIALS", None),
    ("404", "FAILED_PRECONDITION", "UPSTREAM_NO_MODEL", None),
    ("400", "INVALID_ARGUMENT", "UPSTREAM_REFUSED", None),
    ("422", "INVALID_ARGUMENT", "UPSTREAM_REFUSED", None),
    ("413", "INVALID_ARGUMENT", "UPSTREAM_TOO_LONG", None),
    ("reset", "UNAVAILABLE", "UPSTREAM_RESET", 0.5),
    ("silence", "UNAVAILABLE", "UPSTREAM_SILENT", 0.5),
    ("cut", "UNAVAILABLE", "UPSTREAM_RESET", 0.5),
    ("malformed", "UNAVAILABLE", "UPSTREAM_MALFORMED", None),
    ("content_type", "UNAVAILABLE", "UPSTREAM_MALFORMED", None),
    ("oversized", "UNAVAILABLE", "UPSTREAM_TOO_LARGE", None),
]


@pytest.mark.parametrize(("fault", "code", "reason", "retry_s"), FAULTS)
async def test_each_fault_of_the_provider_has_its_status(
    api: Api, fault: str, code: str, reason: str, retry_s: float | None
) -> None:
    api.system.provider.fail_next(fault)
    told = await refused(compute(api, f"fails by {fault}"))
    assert (told.code, told.reason, told.retry_s) == (code, reason, retry_s)
    assert "sk-secret" not in told.message


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", "UPSTREAM_RESET"),
        ("malformed", "UPSTREAM_MALFORMED"),
        ("error_event", "UPSTREAM_ERROR"),
    ],
)
async def test_a_stream_that_breaks_inside_ends_in_its_fault_after_its_pieces(
    api: Api, fault: str, reason: str
) -> None:
    task = inference_pb2.Task(generate=chat("one two three four"))
    request = inference_pb2.ComputeStreamRequest(model="chat", task=task)
    api.system.provider.fail_next(fault)
    call = api.upstream.ComputeStream(request, metadata=api.token, timeout=TIMEOUT_S)
    pieces, told = await broken(call)
    assert pieces[0].chunk.delta == "one"
    assert not any(piece.HasField("result") for piece in pieces)
    assert (told.code, told.reason) == ("UNAVAILABLE", reason)


async def test_a_model_that_the_provider_does_not_serve_is_not_found(api: Api) -> None:
    told = await refused(compute(api, "hello", model="other"))
    assert (told.code, told.field) == ("NOT_FOUND", "model")
    told = await refused(compute(api, "hello", model="vectors"))
    assert (told.code, told.field) == ("FAILED_PRECONDITION", "task")


async def test_tools_that_are_no_json_are_named_in_public_words(caller: Caller) -> None:
    task = chat("hello")
    task.tools.add(name="level", parameters_json="{")
    told = await refused(caller.generate(task, model="chat", cache=BYPASS))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", "task.tools[level].parameters_json")


async def test_what_the_provider_reports_stands_in_the_ledger(caller: Caller) -> None:
    receipt = (await caller.generate(chat("count me"), model="chat", cache=BYPASS)).receipt
    spent = receipt.usage.input_tokens + receipt.usage.output_tokens

    async def settled() -> None:
        ledger = await caller.api.ledger(caller.key, "chat")
        assert ledger["all-requests"] == Counted(1)
        assert ledger["all-tokens"] == Counted(spent)
        assert ledger["all-money"] == Counted(receipt.cost.paid_microusd)

    await eventually(settled)


async def test_a_refusal_of_the_provider_costs_nothing(caller: Caller) -> None:
    caller.api.system.provider.fail_next("400")
    told = await refused(caller.generate(chat("refused"), model="chat", cache=BYPASS))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "UPSTREAM_REFUSED")

    async def given_back() -> None:
        ledger = await caller.api.ledger(caller.key, "chat")
        assert set(ledger.values()) == {Counted(0)}

    await eventually(given_back)
