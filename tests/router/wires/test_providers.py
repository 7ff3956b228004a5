"""Providers' own errors on their whole way: the bytes, the upstream service, the router."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.router.settings import RouterSettings
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.testkit.raw_upstream import RawAnswer, RawRequest, RawUpstream, events, whole

from ..rig import fault_of
from ..routed import Routed, StartRouter
from .instances import generate, set_window

SETTINGS = RouterSettings()
KEY = "sk-proj-secretsecretsecret1234567890"
YES: dict[str, Any] = {
    "model": "m",
    "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
}
TOO_LONG = {"message": "input (40000 tokens) is longer than the context length", "code": 400}


def said(delta: str, finish_reason: str | None = None) -> dict[str, Any]:
    """One event of a chat stream."""
    return {"choices": [{"delta": {"content": delta}, "finish_reason": finish_reason}]}


def refused(status: int, error: dict[str, Any], **headers: str) -> RawAnswer:
    """An answer that is an error."""
    return whole({"error": error}, status, **headers)


async def join(
    routed: Routed, name: str, model: str, answer: Callable[[RawRequest], RawAnswer]
) -> RawUpstream:
    """An upstream that answers so, with its service."""
    upstream = await routed.stack.enter_async_context(RawUpstream(answer))
    section = Upstream(name=name, base_url=upstream.url, models=(UpstreamModel(name=model),))
    client = Client(section, NO_TELEMETRY)
    routed.stack.push_async_callback(client.close)
    await routed.join(name, UpstreamServicer(client, SystemClock(), NO_TELEMETRY), model)
    return upstream


async def stream(routed: Routed, model: str, content: str, **options: object) -> str:
    """What is said in answer, piece by piece."""
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=content)
    request = pb.GenerateStreamRequest(
        task=inference_pb2.GenerateTask(messages=[message]),
        options=pb.CallOptions(model=model, **options),  # type: ignore[arg-type]
    )
    pieces = routed.stub.GenerateStream(request, metadata=routed.metadata, timeout=20)
    return "".join([piece.chunk.delta async for piece in pieces])


@pytest.mark.wire_case(17)
@pytest.mark.wire_case(19)
async def test_a_prompt_that_is_too_long_ejects_nobody_and_is_told_or_goes_on_to_a_larger_model(
    start_router: StartRouter,
) -> None:
    def small(request: RawRequest) -> RawAnswer:
        if "long" in request.body["messages"][0]["content"]:
            return events({"error": TOO_LONG})
        return events(said("yes"), said("", "stop"))

    async with start_router(SETTINGS) as routed:
        for name in ("a", "b"):
            await join(routed, name, "small", small)
        for _ in range(3):
            told = await fault_of(stream(routed, "small", "long"))
            assert told.reason is Reason.UPSTREAM_TOO_LONG
            assert "40000 tokens" in told.message
        assert await stream(routed, "small", "short") == "yes"
        assert [member.failures for member in routed.registry.members.values()] == [0, 0]

        await join(routed, "c", "large", lambda _: events(said("large"), said("", "stop")))
        for name, tokens in (("a", 32_768), ("b", 32_768), ("c", 128_000)):
            set_window(routed, name, tokens)
        assert await stream(routed, "small", "long", fallback_models=["large"]) == "large"


@pytest.mark.wire_case(18)
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "invalid_api_key", Reason.UPSTREAM_CREDENTIALS),
        (402, "insufficient_balance", Reason.UPSTREAM_BALANCE),
        (429, "insufficient_quota", Reason.UPSTREAM_BALANCE),
        (404, "model_not_found", Reason.UPSTREAM_NO_MODEL),
    ],
)
async def test_a_revoked_key_or_an_empty_balance_is_served_elsewhere_and_never_told_with_the_key(
    start_router: StartRouter, status: int, code: str, reason: Reason
) -> None:
    error = {"message": f"no: {KEY}", "code": code}
    async with start_router(SETTINGS) as routed:
        refusing = await join(routed, "a", "small", lambda _: refused(status, error))
        told = await fault_of(generate(routed, "small"))
        assert told.reason is reason
        assert KEY not in told.message
        await join(routed, "b", "small", lambda _: whole(YES))
        for number in range(3):
            answer = await generate(routed, "small", f"question {number}")
            assert answer.receipt.route.instance_id == "b"
        assert len(refusing.requests) == 1


@pytest.mark.wire_case(20)
@pytest.mark.parametrize(
    ("headers", "error", "rest_s"),
    [
        ({"retry_after": "45"}, {}, 45.0),
        ({"retry_after": "45.8"}, {}, 45.8),
        ({"retry_after_ms": "45800"}, {}, 45.8),
        ({"retry_after_ms": "45800", "retry_after": "60"}, {}, 45.8),
        ({"retry_after": "in 45 s"}, {}, 45.0),
        (
            {},
            {
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.RetryInfo",
                        "retryDelay": "45.8s",
                    }
                ]
            },
            45.8,
        ),
    ],
    ids=["seconds", "fraction", "milliseconds", "milliseconds first", "date", "body"],
)
async def test_an_upstream_that_asks_for_time_rests_that_long(
    start_router: StartRouter, headers: dict[str, str], error: dict[str, Any], rest_s: float
) -> None:
    if headers.get("retry_after") == "in 45 s":
        headers = {"retry_after": formatdate(time.time() + 45.0, usegmt=True)}
    busy = refused(429, {"message": "slow down", **error}, **headers)
    async with start_router(SETTINGS) as routed:
        await join(routed, "a", "small", lambda _: busy)
        told = await fault_of(generate(routed, "small"))
        assert told.reason is Reason.UPSTREAM_RATE_LIMITED
        # A date is in whole seconds, and time passes until it is read.
        within_s = 20.0 if "GMT" in headers.get("retry_after", "") else 0.01
        assert told.retry_after_s == pytest.approx(rest_s, abs=within_s)
        left_s = routed.registry.fleets["small"].resting["a"] - time.monotonic()
        assert 0.0 < told.retry_after_s - left_s < told.retry_after_s
