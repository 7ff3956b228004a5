"""Every model that may serve a call is admitted before it is sent anything: fallbacks, second
tries, rests of cut answers; and the caller's ceiling holds for their sum.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.resuming import RESUMES
from penstock.router.settings import ModelRoute, RoutesSection
from penstock.rpc.reasons import Reason
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from ..calls.test_resuming import Speaker
from ..rig import embed, fault_of
from ..routed import Routed
from ..scripted import Behaviour, ScriptedInstance
from .conftest import LimitedRouter, StartLimitedRouter
from .instances import fault, generate, join, set_window

BIG_REQUESTS = {
    "name": "big-rpm",
    "kind": "rate",
    "level": "model",
    "match": "big",
    "counts": "requests",
    "limit": 2,
    "window": "hour",
}


def budget(counts: str, limit: int = 10**9, **more: object) -> dict[str, object]:
    """An hourly budget as a rule of the limiter."""
    return {
        "name": counts,
        "kind": "budget",
        "counts": counts,
        "limit": limit,
        "window": "hour",
        "calendar": True,
        **more,
    }


@pytest.mark.wire_case(16)
async def test_a_fallback_is_refused_by_the_limits_of_its_own_model(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(BIG_REQUESTS) as limited:
        big = await join(limited.routed, "b", "big")
        for _ in range(2):
            answer = await generate(limited.routed, "nope", fallback_models=["big"])
            assert answer.receipt.model == "big"
        for _ in range(3):
            told = await fault_of(generate(limited.routed, "nope", fallback_models=["big"]))
            assert told.reason is Reason.RATE_LIMITED
            assert "big-rpm" in told.message
        assert len(big.tasks) == 2


@pytest.mark.wire_case(16)
async def test_a_dearer_fallback_is_held_to_the_callers_ceiling(
    start_limited_router: StartLimitedRouter,
) -> None:
    down = fault(Reason.UPSTREAM_OVERLOADED)
    async with start_limited_router(budget("microusd")) as limited:
        await join(limited.routed, "a", "small", always=down)
        big = await join(limited.routed, "b", "big")
        words = "many words " * 20
        call = {"content": words, "fallback_models": ["big"], "max_cost_microusd": 80}
        told = await fault_of(generate(limited.routed, "small", **call))  # type: ignore[arg-type]
        assert told.reason is Reason.COST_CEILING
        assert not big.tasks
        assert (await limited.committed("big"))["microusd"].microusd == 0


@pytest.mark.wire_case(16)
async def test_an_open_answer_is_cut_to_what_the_ceiling_affords_and_the_receipt_says_so(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(budget("microusd")) as limited:
        big = await join(limited.routed, "b", "big")
        answer = await generate(limited.routed, "big", "hi", max_cost_microusd=80)
        [task] = big.tasks
        assert 0 < task.generate.max_tokens < 80
        assert answer.receipt.notes[-1] == (
            f"output limited to {task.generate.max_tokens} tokens: options.max_cost_microusd "
            "affords no more"
        )


@pytest.mark.wire_case(16)
async def test_what_a_silent_try_may_bill_is_booked_and_counts_towards_the_ceiling(
    start_limited_router: StartLimitedRouter,
) -> None:
    silent = fault(Reason.UPSTREAM_SILENT)
    async with start_limited_router(budget("microusd"), budget("requests")) as limited:
        await join(limited.routed, "a", "big", silent)
        await join(limited.routed, "b", "big", silent)
        content = "word " * 60  # 211 tokens at most, about 59 as estimated
        told = await fault_of(generate(limited.routed, "big", content, max_cost_microusd=250))
        assert told.reason is Reason.COST_CEILING, "the second send would exceed what is left"
        booked = await limited.committed("big")
        assert booked["requests"].requests == 1
        assert booked["microusd"].microusd > 50


@pytest.mark.wire_case(16)
async def test_a_fallback_gets_its_own_length_and_the_hold_of_the_failed_model_is_released(
    start_limited_router: StartLimitedRouter,
) -> None:
    down = fault(Reason.UPSTREAM_OVERLOADED)
    # Room for one call of `big`: what is held for the failed one has to be given back first.
    async with start_limited_router(budget("tokens", 150, adaptive=False)) as limited:
        await join(limited.routed, "a", "small", always=down)
        big = await join(limited.routed, "b", "big")
        answer = await generate(limited.routed, "small", "hi", fallback_models=["big"])
        assert answer.receipt.model == "big"
        assert big.tasks[0].generate.max_tokens == 100
        assert (await limited.committed("big"))["tokens"].tokens == 5


@pytest.mark.wire_case(16)
async def test_a_model_whose_limits_refuse_leaves_the_call_to_the_next_one(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(BIG_REQUESTS) as limited:
        await join(limited.routed, "b", "big")
        await join(limited.routed, "a", "small")
        served = [
            (await generate(limited.routed, "big", fallback_models=["small"])).receipt
            for _ in range(3)
        ]
        assert [receipt.model for receipt in served] == ["big", "big", "small"]
        assert "fallback from big to small: RATE_LIMITED" in served[-1].notes


@pytest.mark.wire_case(23)
async def test_70_kb_of_english_fit_60_000_tokens_a_minute(
    start_limited_router: StartLimitedRouter,
) -> None:
    tokens = {"name": "tpm", "kind": "rate", "counts": "tokens", "limit": 60_000}
    async with start_limited_router({**tokens, "window": "minute"}) as limited:
        await join(limited.routed, "a", "small")
        content = "should act towards one another in a spirit of brotherhood. " * 1_187
        assert len(content) > 70_000
        assert (await generate(limited.routed, "small", content)).result.message.content == "yes"


@pytest.mark.wire_case(23)
async def test_a_tokenizer_that_is_named_for_a_model_counts_its_prompts(
    start_limited_router: StartLimitedRouter, tmp_path: Path
) -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    named = ModelRoute(name="small", tokenizer_file=tmp_path / "tokenizer.json")
    tokens = budget("tokens", 400, adaptive=False)
    async with start_limited_router(tokens, routes=RoutesSection(models=(named,))) as limited:
        await join(limited.routed, "a", "small")
        await join(limited.routed, "b", "big")
        content = "longwordsthatareonetoken " * 200
        answer = await generate(limited.routed, "small", content)
        assert answer.receipt.model == "small"
        told = await fault_of(generate(limited.routed, "big", content))
        assert told.reason is Reason.NEVER_FITS
        set_window(limited.routed, "a", 203)
        told = await fault_of(generate(limited.routed, "small", content))
        assert told.message.endswith("lacks room for 204 tokens, counted")


@pytest.mark.wire_case(15)
async def test_a_length_that_nothing_declares_is_assumed_and_the_receipt_says_so(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(budget("tokens")) as limited:
        unknown = await join(limited.routed, "a", "unknown")
        said = await generate(limited.routed, "unknown")
        assert unknown.tasks[0].generate.max_tokens == 4_096
        assert said.receipt.notes[-1] == (
            "output limited to 4,096 tokens: nothing declares max_output_tokens of unknown"
        )
        limited.routed.registry.registered["a"].models[0].max_output_tokens = 32_000
        said = await generate(limited.routed, "unknown")
        assert unknown.tasks[1].generate.max_tokens == 32_000
        assert not [note for note in said.receipt.notes if note.startswith("output limited")]


async def _hedged(limited: LimitedRouter, **options: object) -> pb.EmbedResponse:
    """Embed a text at a slow instance, with another one that is free."""
    routed = limited.routed
    routed.registry.fleets["big"].p95_s = 0.02
    request = embed("hello", model="big", **options)
    answer: pb.EmbedResponse = await routed.stub.Embed(request, metadata=routed.metadata, timeout=5)
    return answer


async def _slow_and_quick(routed: Routed) -> tuple[ScriptedInstance, ScriptedInstance]:
    slow, quick = ScriptedInstance(), ScriptedInstance()
    slow.behaviour = Behaviour.HANGS
    await routed.join("slow", slow, "big")
    await routed.join("quick", quick, "big")
    return slow, quick


@pytest.mark.wire_case(16)
async def test_a_hedge_is_admitted_for_itself_and_both_are_booked(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(budget("requests")) as limited:
        _, quick = await _slow_and_quick(limited.routed)
        with limited.routed.occupied("quick", requests=1):
            assert (await _hedged(limited)).receipt.route.hedged
        assert len(quick.requests) == 1
    # The lease is returned when the router closes: 2 requests were spent of it.


@pytest.mark.wire_case(16)
async def test_a_hedge_that_the_ceiling_does_not_afford_is_not_sent(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(budget("requests")) as limited:
        slow, quick = await _slow_and_quick(limited.routed)
        with limited.routed.occupied("quick", requests=1), pytest.raises(grpc.aio.AioRpcError):
            await _hedged(limited, max_cost_microusd=30)
        assert len(slow.requests) == 1
        assert not quick.requests


@pytest.mark.wire_case(16)
async def test_the_rest_of_a_cut_answer_is_admitted_before_it_is_asked_for(
    start_limited_router: StartLimitedRouter,
) -> None:
    async with start_limited_router(budget("tokens", 160, adaptive=False)) as limited:
        routed = limited.routed
        cut, whole = Speaker(after=2), Speaker()
        await routed.join("cut", cut, "big")
        await routed.join("whole", whole, "big")
        routed.registry.registered["whole"].capabilities.append(RESUMES)
        with routed.occupied("whole", requests=1), pytest.raises(grpc.aio.AioRpcError) as ended:
            await _stream(routed, max_tokens=110)
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not whole.tasks
        with routed.occupied("whole", requests=1):
            pieces = await _stream(routed, max_tokens=40)
        assert "".join(piece.chunk.delta for piece in pieces) == "one two three four"


async def _stream(routed: Routed, max_tokens: int) -> list[pb.GenerateStreamResponse]:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content="count")
    task = inference_pb2.GenerateTask(messages=[message], max_tokens=max_tokens)
    request = pb.GenerateStreamRequest(task=task, options=pb.CallOptions(model="big"))
    pieces = routed.stub.GenerateStream(request, metadata=routed.metadata, timeout=20)
    return [piece async for piece in pieces]
