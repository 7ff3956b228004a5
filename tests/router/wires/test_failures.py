"""Failures of hosted models by the table: whose fault it is decides who goes on, who rests, and
what the caller is told.
"""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.settings import RouterSettings
from penstock.rpc.reasons import Reason

from ..rig import fault_of
from ..routed import Routed, StartRouter
from .instances import fault, generate, join, set_window

TOO_LONG = fault(Reason.UPSTREAM_TOO_LONG, "task.messages: 40000 tokens, 32768 are taken")


SETTINGS = RouterSettings()


def requests_at(routed: Routed) -> dict[str, int]:
    """How often each instance was chosen."""
    return {name: member.picks for name, member in routed.registry.members.items()}


@pytest.mark.wire_case(17)
@pytest.mark.parametrize(
    "reason",
    [
        Reason.UPSTREAM_TOO_LONG,
        Reason.UPSTREAM_REFUSED,
        Reason.UPSTREAM_FILTERED,
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_MALFORMED,
        Reason.UPSTREAM_TOO_LARGE,
        Reason.UPSTREAM_RESET,
        Reason.INTERNAL,
    ],
)
async def test_what_one_request_causes_ejects_nobody_however_often_it_is_sent(
    start_router: StartRouter, reason: Reason
) -> None:
    async with start_router(SETTINGS) as routed:
        for name in ("a", "b"):
            await join(routed, name, "small", always=fault(reason))
        for _ in range(6):
            await fault_of(generate(routed, "small", "odd"))
        for member in routed.registry.members.values():
            assert member.ejections == 0
        for name in ("a", "b"):
            await join(routed, name, "small")
        assert (await generate(routed, "small", "plain")).result.message.content == "yes"


@pytest.mark.wire_case(17)
async def test_what_many_requests_run_into_ejects_one_and_never_the_last(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        broken = await join(routed, "a", "small", always=fault(Reason.UPSTREAM_ERROR))
        await join(routed, "b", "small")
        with routed.occupied("b", requests=4):
            for number in range(10):
                await generate(routed, "small", f"question {number}")
        assert routed.registry.members["a"].ejections >= 1
        assert len(broken.tasks) < 10

        await join(routed, "b", "small", always=fault(Reason.UPSTREAM_UNREACHABLE, "b is down"))
        for number in range(8):
            told = await fault_of(generate(routed, "small", f"another {number}"))
            assert told.reason in (Reason.UPSTREAM_ERROR, Reason.UPSTREAM_UNREACHABLE)


@pytest.mark.wire_case(18)
@pytest.mark.parametrize(
    "reason", [Reason.UPSTREAM_CREDENTIALS, Reason.UPSTREAM_BALANCE, Reason.UPSTREAM_NO_MODEL]
)
async def test_the_operators_fault_is_served_by_others_and_by_another_model(
    start_router: StartRouter, reason: Reason
) -> None:
    async with start_router(SETTINGS) as routed:
        refusing = await join(routed, "a", "small", always=fault(reason, "the key is refused"))
        other = await join(routed, "b", "small")
        large = await join(routed, "c", "large")
        for _ in range(5):
            assert (await generate(routed, "small")).receipt.route.instance_id == "b"
        assert len(refusing.tasks) <= 1

        other.always = fault(reason, "the key is refused")
        answer = await generate(routed, "small", fallback_models=["large"])
        assert answer.receipt.model == "large"
        assert f"fallback from small to large: {reason}" in answer.receipt.notes
        assert len(large.tasks) == 1
        told = await fault_of(generate(routed, "small"))
        assert (told.reason, told.message) == (reason, "the key is refused")


@pytest.mark.wire_case(18)
async def test_a_rest_is_for_one_model_and_others_of_the_instance_go_on(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", fault(Reason.UPSTREAM_NO_MODEL))
        await join(routed, "b", "small")
        await routed.registry.heartbeat("a", _no_load(), _models("small", "large"))
        with routed.occupied("b", requests=1):
            await generate(routed, "small")
            await generate(routed, "small")
            assert (await generate(routed, "large")).receipt.route.instance_id == "a"
        assert requests_at(routed) == {"a": 2, "b": 2}


@pytest.mark.wire_case(19)
async def test_a_prompt_that_is_too_long_goes_on_to_a_larger_model_which_is_said(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", always=TOO_LONG)
        smaller = await join(routed, "b", "smaller")
        same = await join(routed, "c", "same")
        await join(routed, "d", "large")
        windows = {"a": 32_768, "b": 8_192, "c": 32_768, "d": 128_000}
        for name, tokens in windows.items():
            set_window(routed, name, tokens)
        chain = ["smaller", "same", "large"]
        answer = await generate(routed, "small", fallback_models=chain)
        assert answer.receipt.model == "large"
        assert "fallback from small to large: UPSTREAM_TOO_LONG" in answer.receipt.notes
        assert not smaller.tasks
        assert not same.tasks


@pytest.mark.wire_case(19)
async def test_where_no_larger_model_is_left_the_caller_hears_the_upstreams_reason(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", always=TOO_LONG)
        await join(routed, "b", "smaller")
        set_window(routed, "a", 32_768)
        set_window(routed, "b", 8_192)
        told = await fault_of(generate(routed, "small", fallback_models=["smaller"]))
        assert (told.reason, told.message) == (TOO_LONG.reason, TOO_LONG.message)


@pytest.mark.wire_case(19)
async def test_a_model_that_does_not_say_its_length_may_be_larger(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", always=TOO_LONG)
        await join(routed, "b", "unknown")
        set_window(routed, "a", 32_768)
        answer = await generate(routed, "small", fallback_models=["unknown"])
        assert answer.receipt.model == "unknown"


async def test_what_a_filter_refuses_is_put_to_no_other_model(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", always=fault(Reason.UPSTREAM_FILTERED, "is filtered"))
        large = await join(routed, "b", "large")
        told = await fault_of(generate(routed, "small", fallback_models=["large"]))
        assert told.reason is Reason.UPSTREAM_FILTERED
        assert not large.tasks


async def test_images_go_to_a_model_that_takes_them_and_are_refused_by_field_where_none_does(
    start_router: StartRouter,
) -> None:
    async with start_router(SETTINGS) as routed:
        blind = await join(routed, "a", "small")
        await join(routed, "b", "large")
        request = pb.GenerateRequest(options=pb.CallOptions(model="small"))
        turn = request.task.messages.add(role=inference_pb2.ROLE_USER)
        turn.parts.add(text="what is this?")
        turn.parts.add(image=inference_pb2.Image(url="https://a/b.png"))
        call = routed.stub.Generate(request, metadata=routed.metadata, timeout=20)
        told = await fault_of(call)
        assert (told.reason, told.field) == (
            Reason.CANNOT_SERVE,
            "task.messages[0].parts[1].image",
        )
        large = routed.registry.registered["b"].models[0]
        large.inputs.append(inference_pb2.MODALITY_IMAGE)
        request.options.fallback_models.append("large")
        answer = await routed.stub.Generate(request, metadata=routed.metadata, timeout=20)
        assert answer.receipt.model == "large"
        assert not blind.tasks


@pytest.mark.wire_case(20)
@pytest.mark.parametrize("reason", [Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_OVERLOADED])
async def test_an_instance_rests_for_as_long_as_it_says(
    start_router: StartRouter, reason: Reason
) -> None:
    async with start_router(SETTINGS) as routed:
        limited = await join(routed, "a", "small", always=fault(reason, retry_after_s=45.8))
        await join(routed, "b", "small")
        for number in range(8):
            answer = await generate(routed, "small", f"question {number}")
            assert answer.receipt.route.instance_id == "b"
        assert len(limited.tasks) == 1
        assert routed.registry.members["a"].ejections == 0, "it was asked to wait, no more"


@pytest.mark.wire_case(20)
async def test_the_last_instance_is_asked_on_and_its_own_words_and_time_reach_the_caller(
    start_router: StartRouter,
) -> None:
    limited = fault(Reason.UPSTREAM_RATE_LIMITED, "30,000 tokens a minute", retry_after_s=12.5)
    async with start_router(SETTINGS) as routed:
        instance = await join(routed, "a", "small", limited, limited)
        for _ in range(2):
            told = await fault_of(generate(routed, "small"))
            assert (told.reason, told.message) == (limited.reason, limited.message)
            assert told.retry_after_s == 12.5
        answer = await generate(routed, "small")
        assert answer.receipt.route.reason == "least_added_delay: last resort: lowest score"
        assert len(instance.tasks) == 3


def _no_load() -> common_pb2.LoadReport:
    return common_pb2.LoadReport()


def _models(*names: str) -> list[inference_pb2.Model]:
    ready = inference_pb2.MODEL_STATE_READY
    return [inference_pb2.Model(name=name, state=ready) for name in names]
