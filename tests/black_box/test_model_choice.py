"""Which model serves: fallbacks in order, `auto` by price and quality, verdicts, the cascade."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, Caller, Counted, chat, refused
from .instance import Asked, Refuse, Script, Serve, always, echo, labelled

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


def out_of_order(code: grpc.StatusCode, reason: str) -> Script:
    """A script that always refuses."""

    async def script(asked: Asked) -> Pieces:
        raise Refuse(code, reason)
        yield  # makes it a generator

    return script


async def test_the_next_model_serves_where_the_first_cannot_and_the_receipt_says_so(
    caller: Caller, api: Api, serve: Serve
) -> None:
    first, second = api.system.fresh_model(), api.system.fresh_model()
    broken = out_of_order(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
    async with serve(broken, first) as one, serve(echo, second) as two:
        answer = await caller.generate(
            chat("hello"), model=first, fallback_models=["nowhere", second], cache=BYPASS
        )
        assert (len(one.asked), len(two.asked)) == (1, 1)
    receipt = answer.receipt
    assert (receipt.model, receipt.route.instance_id) == (second, two.name)
    assert receipt.route.attempts == 2
    notes = [note for note in receipt.notes if note.startswith("fallback")]
    assert notes == [
        f"fallback from {first} to nowhere: UPSTREAM_OVERLOADED",
        f"fallback from nowhere to {second}: NO_MODEL",
    ]
    # 7 tokens in and 3 out, at the second model's price
    assert receipt.cost.paid_microusd == 7 + 2 * 3


async def test_the_file_says_fallbacks_too(caller: Caller, serve: Serve) -> None:
    """`model-001` follows `model-000`, which nobody serves."""
    async with serve(echo, "model-001"):
        answer = await caller.generate(chat("hello"), model="model-000", cache=BYPASS)
    assert answer.receipt.model == "model-001"
    assert "fallback from model-000 to model-001: NO_MODEL" in answer.receipt.notes


async def test_a_rate_limited_model_falls_back_and_a_mistake_of_the_caller_does_not(
    caller: Caller, api: Api, serve: Serve
) -> None:
    first, second = api.system.fresh_model(), api.system.fresh_model()
    wanted: dict[str, Any] = {"model": first, "fallback_models": [second], "cache": BYPASS}
    limited = out_of_order(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED")
    mistaken = out_of_order(grpc.StatusCode.INVALID_ARGUMENT, "")
    async with serve(echo, second) as spare:
        async with serve(limited, first):
            assert (await caller.generate(chat("a"), **wanted)).receipt.model == second
        async with serve(mistaken, first):
            assert (await refused(caller.generate(chat("b"), **wanted))).code == "INVALID_ARGUMENT"
        assert len(spare.asked) == 1


async def test_when_every_model_fails_the_last_ones_fault_is_told(
    caller: Caller, api: Api, serve: Serve
) -> None:
    first, second = api.system.fresh_model(), api.system.fresh_model()
    async with (
        serve(out_of_order(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED"), first),
        serve(out_of_order(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED"), second),
    ):
        told = await refused(
            caller.generate(chat("x"), model=first, fallback_models=[second], cache=BYPASS)
        )
    assert (told.code, told.reason) == ("UNAVAILABLE", "UPSTREAM_OVERLOADED")


def auto(job: str, **fields: Any) -> dict[str, Any]:
    """Options that choose among `<job>-small` (quality 0.6) and `<job>-large` (0.9, ten times the
    price, `tools`)."""
    needs = [job, *fields.pop("needs", ())]
    return {"model": "auto", "required_capabilities": needs, "cache": BYPASS, **fields}


async def test_auto_is_the_cheapest_model_that_meets_the_ask(caller: Caller, serve: Serve) -> None:
    small, large = {"capabilities": ["cheap"]}, {"capabilities": ["cheap", "tools"]}
    async with serve(echo, "cheap-small", **small), serve(echo, "cheap-large", **large):
        plain = await caller.generate(chat("a"), **auto("cheap"))
        good = await caller.generate(chat("b"), **auto("cheap", min_quality=0.8))
        able = await caller.generate(chat("c"), **auto("cheap", needs=["tools"]))
    assert plain.receipt.model == "cheap-small"
    assert "auto: cheapest of 2 with quality 0 or more" in plain.receipt.notes
    assert good.receipt.model == "cheap-large"
    assert "auto: cheapest of 1 with quality 0.8 or more" in good.receipt.notes
    assert able.receipt.model == "cheap-large"


async def test_verdicts_of_callers_move_a_models_quality(caller: Caller, serve: Serve) -> None:
    """Declared 0.6 counts as 20 answers; after 10 wrong ones it is 12 / 30, below 0.5."""
    small, large = {"capabilities": ["judged"]}, {"capabilities": ["judged", "tools"]}
    async with serve(echo, "judged-small", **small), serve(echo, "judged-large", **large):
        chosen = []
        for number in range(12):
            answer = await caller.generate(chat(f"x {number}"), **auto("judged", min_quality=0.5))
            chosen.append(answer.receipt.model)
            verdict = pb.SendFeedbackRequest(request_id=answer.receipt.request_id, correct=False)
            told = await caller.api.router.SendFeedback(verdict, metadata=caller.metadata)
            assert not told.quarantined
            again = await caller.api.router.SendFeedback(verdict, metadata=caller.metadata)
            assert not again.quarantined  # and an answer is judged once
    # 0.6 * 20 / (20 + n) falls below 0.5 with the fifth verdict
    assert chosen[:5] == ["judged-small"] * 5
    assert set(chosen[5:]) == {"judged-large"}


CASCADE = {"capabilities": ["cascade"]}


async def test_an_unsure_answer_is_taken_to_the_next_model_and_both_are_billed(
    caller: Caller, serve: Serve
) -> None:
    """The file's floor is 0.8; only classify says how sure it is."""
    async with (
        serve(always(labelled("maybe", 0.55, input_tokens=20)), "cascade-small", **CASCADE),
        serve(always(labelled("surely", 0.95, input_tokens=30)), "cascade-large", **CASCADE),
    ):
        answer = await caller.classify(["x"], {"a": "a", "b": "b"}, **auto("cascade"))
    assert answer.classifications[0].labels[0].label == "surely"
    receipt = answer.receipt
    assert receipt.model == "cascade-large"
    (first,) = receipt.escalations
    assert (first.model, first.usage.input_tokens) == ("cascade-small", 20)
    assert (round(first.confidence, 2), first.floor) == (0.55, 0.8)
    assert first.cost == common_pb2.Cost(paid_microusd=20, full_price_microusd=20)
    assert 0 < first.total_ms < receipt.total_ms
    assert first.request_id != receipt.request_id
    assert receipt.usage == common_pb2.Usage(input_tokens=50)
    assert receipt.cost == common_pb2.Cost(paid_microusd=20 + 300, full_price_microusd=20 + 300)
    (note,) = [note for note in receipt.notes if note.startswith("cascade")]
    assert "300 micro-dollars" in note

    async def settled() -> None:
        assert (await caller.api.ledger(caller.key))["all-tokens"] == Counted(50)

    await eventually(settled)


async def test_a_sure_answer_stays_and_so_does_one_with_nobody_left_to_ask(
    caller: Caller, serve: Serve
) -> None:
    async with serve(always(labelled("surely", 0.9)), "cascade-small", **CASCADE) as small:
        async with serve(always(labelled("other", 0.9)), "cascade-large", **CASCADE) as large:
            answer = await caller.classify(["x"], {"a": "a", "b": "b"}, **auto("cascade"))
            assert answer.receipt.model == "cascade-small"
            assert not answer.receipt.escalations
            assert not large.asked
        small.script = always(labelled("maybe", 0.3))
        answer = await caller.classify(["x"], {"a": "a", "b": "b"}, **auto("cascade"))
        assert answer.classifications[0].labels[0].label == "maybe"


async def test_a_cascade_that_cannot_go_on_gives_what_it_has_and_says_why(
    caller: Caller, serve: Serve
) -> None:
    async with (
        serve(always(labelled("maybe", 0.5)), "cascade-small", **CASCADE),
        serve(
            out_of_order(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED"),
            "cascade-large",
            **CASCADE,
        ),
    ):
        answer = await caller.classify(["x"], {"a": "a", "b": "b"}, **auto("cascade"))
    assert answer.receipt.model == "cascade-small"
    assert not answer.receipt.escalations
    assert answer.receipt.cost.paid_microusd == 2
    (note,) = [note for note in answer.receipt.notes if note.startswith("cascade")]
    assert "cascade-large" in note
    assert "UPSTREAM_OVERLOADED" in note
