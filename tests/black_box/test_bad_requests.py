"""What public requests may not say: each is refused with the field to mend, and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb

from .calls import TIMEOUT_S, Caller, Counted, chat, options, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]


def embed(*texts: str, **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=texts, options=options(**fields))


def generate(task: inference_pb2.GenerateTask, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(task=task, options=options(model="chat", **fields))


def turns(*messages: dict[str, Any]) -> pb.GenerateRequest:
    return generate(
        inference_pb2.GenerateTask(messages=[inference_pb2.Message(**row) for row in messages])
    )


BAD: list[tuple[str, Any, str, str]] = [
    ("Embed", embed(), "texts", ""),
    ("Embed", embed("fine", " \n"), "texts[1]", ""),
    ("Embed", embed(*["x"] * 1025), "texts", "1024"),
    ("Embed", embed("x", run_id="r" * 129), "options.run_id", "128 bytes"),
    ("Embed", embed("x", step="ü" * 65), "options.step", "128 bytes"),
    (
        "Embed",
        embed("x", affinity_key="a" * 129),
        "options.affinity_key",
        "128 bytes",
    ),
    ("Embed", embed("x", priority=9), "options.priority", "0 to 4"),
    ("Embed", embed("x", max_cost_microusd=-1), "options.max_cost_microusd", ""),
    ("Embed", embed("x", min_quality=1.5), "options.min_quality", "0 and 1"),
    ("Embed", embed("x", cache={"max_age_ms": -1}), "options.cache.max_age_ms", ""),
    (
        "Embed",
        embed("x", cache={"max_error_rate": 2.0}),
        "options.cache.max_error_rate",
        "0 and 1",
    ),
    ("Classify", pb.ClassifyRequest(), "texts", ""),
    ("Classify", pb.ClassifyRequest(texts=[""]), "texts[0]", ""),
    ("Generate", turns(), "task.messages", ""),
    (
        "Generate",
        turns({"role": 9, "content": "x"}),
        "task.messages[0].role",
        "ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL",
    ),
    (
        "Generate",
        turns(
            {"role": inference_pb2.ROLE_ASSISTANT},
            {"role": inference_pb2.ROLE_USER},
        ),
        "task.messages[1].content",
        "",
    ),
    (
        "Generate",
        turns({"role": inference_pb2.ROLE_TOOL, "content": "21"}),
        "task.messages[0].tool_call_id",
        "",
    ),
    (
        "Generate",
        generate(chat("x", temperature=2.5)),
        "task.temperature",
        "0 and 2",
    ),
    (
        "Generate",
        generate(chat("x", top_p=0.0)),
        "task.top_p",
        "1",
    ),
    ("Infer", pb.InferRequest(), "task.inputs", ""),
    ("SubmitJob", pb.SubmitJobRequest(), "task", ""),
    (
        "SubmitJob",
        pb.SubmitJobRequest(task=inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[""]))),
        "task.embed.texts[0]",
        "",
    ),
    ("CancelRun", pb.CancelRunRequest(), "run_id", ""),
    ("SendFeedback", pb.SendFeedbackRequest(), "request_id", ""),
    ("GetJob", pb.GetJobRequest(), "id", ""),
]


@pytest.mark.parametrize(
    ("method", "request_", "field", "allowed"), BAD, ids=[f"{row[0]} {row[2]}" for row in BAD]
)
async def test_a_bad_field_is_named_and_nothing_is_booked(
    caller: Caller, method: str, request_: Any, field: str, allowed: str
) -> None:
    call = getattr(caller.api.router, method)
    fault = await refused(call(request_, metadata=caller.metadata, timeout=TIMEOUT_S))
    assert (fault.code, fault.field, fault.reason) == (
        "INVALID_ARGUMENT",
        field,
        "INVALID_ARGUMENT",
    )
    assert fault.message.startswith(f"{field}: ")
    assert allowed in fault.message
    assert fault.retry_s is None
    assert (await caller.api.ledger(caller.key))["all-requests"] == Counted(0)


async def test_the_first_bad_field_of_a_stream_is_named(caller: Caller) -> None:
    fault = await refused(caller.stream(inference_pb2.GenerateTask(), model="chat").read())
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", "task.messages")


NOT_FOUND = [
    ("GetJob", pb.GetJobRequest(id="none"), "id"),
    ("CancelJob", pb.CancelJobRequest(id="none"), "id"),
    ("ExplainRoute", pb.ExplainRouteRequest(request_id="none"), "request_id"),
]


@pytest.mark.parametrize(("method", "request_", "field"), NOT_FOUND)
async def test_what_does_not_exist_is_named(
    caller: Caller, method: str, request_: Any, field: str
) -> None:
    fault = await refused(getattr(caller.api.router, method)(request_, metadata=caller.metadata))
    assert (fault.code, fault.field, fault.reason) == ("NOT_FOUND", field, "NOT_FOUND")
    assert "'none'" in fault.message


@pytest.mark.parametrize("method", ["Embed", "Classify", "GenerateStream", "ExplainRoute"])
async def test_a_model_that_nobody_serves_is_not_found(caller: Caller, method: str) -> None:
    requests: dict[str, Any] = {
        "Embed": embed("x", model="nowhere"),
        "Classify": pb.ClassifyRequest(texts=["x"], options=options(model="nowhere")),
        "GenerateStream": pb.GenerateStreamRequest(
            task=chat("x"), options=options(model="nowhere")
        ),
        "ExplainRoute": pb.ExplainRouteRequest(
            task=inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"])),
            options=options(model="nowhere"),
        ),
    }
    call = getattr(caller.api.router, method)(requests[method], metadata=caller.metadata)
    fault = await refused(call.read() if method == "GenerateStream" else call)
    assert (fault.code, fault.reason, fault.field) == ("NOT_FOUND", "NO_MODEL", "options.model")
    assert "'nowhere'" in fault.message
    assert fault.retry_s is None
