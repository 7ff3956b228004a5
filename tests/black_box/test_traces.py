"""What telemetry shows of a call: the tree of its spans, their attributes, cost and savings."""

from __future__ import annotations

import asyncio
import textwrap
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, Caller, chat, refused
from .configuration import EMBEDDER
from .system import SHAPE

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
CELL = ("router", "limiter", "cache", "batcher")
"""Services that share a process in the shape of a cell."""
PARENT = "00-{trace_id}-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Made:
    """Calls that were made for the tests of this file, together, so that they wait once."""

    caller: Caller
    miss: common_pb2.Receipt
    hit: common_pb2.Receipt
    generated: common_pb2.Receipt
    streamed: common_pb2.Receipt
    failed: str
    """Trace of a call that was refused, which its caller had begun."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(api: Api) -> Made:
    warm = api.caller()  # the instances are attached to the batcher by the first call
    await warm.embed("warm up")
    await warm.generate(chat("warm up"), model="chat")
    caller = api.caller()
    bypass = {"bypass": True}
    miss = (await caller.embed("traced", run_id="run-t", step="search", cache=bypass)).receipt

    async def kept() -> common_pb2.Receipt:
        receipt = (await caller.generate(chat("traced twice"), model="chat")).receipt
        assert receipt.cache.outcome == common_pb2.CACHE_OUTCOME_EXACT_HIT
        return receipt

    generated = (await caller.generate(chat("traced twice"), model="chat")).receipt
    hit = await eventually(kept)
    call = caller.stream(chat("traced as a stream"), model="chat", cache=bypass)
    streamed = [message async for message in call][-1].receipt
    failed = "0af7651916cd43dd8448eb211c80319c"
    metadata = (*caller.metadata, ("traceparent", PARENT.format(trace_id=failed)))
    await refused(api.router.Embed(router_pb2.EmbedRequest(texts=[" "]), metadata=metadata))
    return Made(caller, miss, hit, generated, streamed, failed)


async def trace(api: Api, trace_id: str) -> pb.GetTraceResponse:
    request = pb.GetTraceRequest(trace_id=trace_id)
    return await api.telemetry.GetTrace(request, metadata=api.token)


def lines_of(shown: pb.GetTraceResponse) -> list[str]:
    """Service, name and kind of each span, indented by depth."""
    return [f"{'  ' * span.depth}{span.service}: {span.name} ({span.kind})" for span in shown.spans]


def as_recorded(lines: list[str]) -> list[str]:
    """The lines without the callers' spans of calls inside a cell, which exports none."""
    kept: list[str] = []
    left_out: list[int] = []
    for line, behind in zip(lines, [*lines[1:], ""], strict=True):
        depth = (len(line) - len(line.lstrip())) // 2
        left_out = [each for each in left_out if each < depth]
        service, _, called = behind.strip().partition(": ")
        caller = line.strip().partition(": ")[2]
        is_callers = caller.endswith("(client)") and called == caller.replace("client", "server")
        if SHAPE == "cell" and service in CELL and is_callers:
            left_out.append(depth)
        else:
            kept.append(line[2 * len(left_out) :])
    return kept


async def tree(api: Api, trace_id: str, expected: str) -> pb.GetTraceResponse:
    """The trace, once its spans are these."""
    rows = [line for line in textwrap.dedent(expected).splitlines() if line.strip()]

    async def complete() -> pb.GetTraceResponse:
        shown = await trace(api, trace_id)
        assert as_recorded(lines_of(shown)) == as_recorded(rows)
        return shown

    return await eventually(complete, not_yet=(grpc.aio.AioRpcError,))


def span(shown: pb.GetTraceResponse, service: str, name: str) -> pb.Span:
    return next(row for row in shown.spans if (row.service, row.name) == (service, name))


async def test_an_embedding_leaves_one_trace_through_all_that_took_part(
    api: Api, made: Made
) -> None:
    shown = await tree(
        api,
        made.miss.trace_id,
        """
        router: RouterService/Embed (server)
          router: LimiterService/GrantLease (client)
            limiter: LimiterService/GrantLease (server)
          router: BatcherService/Compute (client)
            batcher: BatcherService/Compute (server)
              batcher: InferenceService/Compute (client)
                inference-onnx-quantized: InferenceService/Compute (server)
        """,
    )
    root, receipt = shown.spans[0], made.miss
    assert not root.parent_id
    by_id = {row.span_id: row for row in shown.spans}
    assert all(row.parent_id in by_id for row in shown.spans[1:])
    assert all(row.waited_on and not row.error for row in shown.spans)
    summary = shown.summary
    assert (summary.name, summary.service) == ("RouterService/Embed", "router")
    assert (summary.tenant, summary.run_id, summary.step) == (made.caller.key, "run-t", "search")
    assert (summary.model, summary.cache, summary.paid_microusd) == (EMBEDDER, "bypassed", 1)
    assert list(summary.services) == ["batcher", "inference-onnx-quantized", "limiter", "router"]
    told = root.attributes
    assert told["penstock.request_id"] == receipt.request_id
    assert told["penstock.tenant"] == made.caller.key
    assert told["gen_ai.response.model"] == EMBEDDER
    assert told["gen_ai.usage.input_tokens"] == str(receipt.usage.input_tokens)
    assert told["penstock.instance.id"] == "onnx-1"
    assert told["penstock.tier"] == "short"
    assert told["rpc.system.name"] == "grpc"
    assert told["rpc.method"] == "penstock.api.router.v1.RouterService/Embed"
    assert told["rpc.response.status_code"] == "OK"
    assert told["gen_ai.operation.name"] == "embeddings"
    assert told["penstock.route.reason"] == receipt.route.reason
    batched = span(shown, "batcher", "BatcherService/Compute").attributes
    assert batched["penstock.instance.id"] == "onnx-1"
    assert batched["penstock.batch.size"] == "1"
    computed = span(shown, "inference-onnx-quantized", "InferenceService/Compute")
    assert computed.instance == "onnx-1"
    assert computed.attributes["gen_ai.request.model"] == EMBEDDER
    assert computed.attributes["penstock.run.id"] == "run-t"


async def test_the_critical_path_fills_the_root_exactly(api: Api, made: Made) -> None:
    async def complete() -> pb.GetTraceResponse:
        shown = await trace(api, made.miss.trace_id)
        assert len(as_recorded(lines_of(shown))) == (5 if SHAPE == "cell" else 7)
        return shown

    shown = await eventually(complete, not_yet=(grpc.aio.AioRpcError,))
    sections, root = shown.critical_path, shown.spans[0]
    assert sum(part.duration_ns for part in sections) == root.duration_ns
    ends = 0
    for part in sections:
        assert part.offset_ns == ends
        ends += part.duration_ns
    assert sum(row.critical_ns for row in shown.spans) == root.duration_ns


async def test_an_answer_that_is_kept_stops_at_the_cache(api: Api, made: Made) -> None:
    expected = """
        router: RouterService/Generate (server)
    """
    if made.hit.cache.rule == "exact":  # and not the router's own copy
        expected += """
          router: CacheService/LookUp (client)
            cache: CacheService/LookUp (server)
        """
    shown = await tree(api, made.hit.trace_id, expected)
    summary = shown.summary
    assert summary.cache == "exact_hit"
    saved = made.hit.savings[0].microusd
    assert (summary.paid_microusd, summary.saved_microusd) == (0, saved)
    assert shown.spans[0].attributes["penstock.saved.microusd.exact_cache"] == str(saved)


async def test_a_generated_answer_shows_look_up_queue_and_provider(api: Api, made: Made) -> None:
    shown = await tree(
        api,
        made.generated.trace_id,
        """
        router: RouterService/Generate (server)
          router: LimiterService/GrantLease (client)
            limiter: LimiterService/GrantLease (server)
          router: CacheService/LookUp (client)
            cache: CacheService/LookUp (server)
          router: BatcherService/Compute (client)
            batcher: BatcherService/Compute (server)
              batcher: InferenceService/Compute (client)
                inference-upstream: InferenceService/Compute (server)
                  inference-upstream: upstream (client)
        """,
    )
    upstream = span(shown, "inference-upstream", "upstream").attributes
    assert upstream["server.address"] == "provider"
    assert upstream["gen_ai.request.model"] == "provider-chat"
    root = shown.spans[0].attributes
    assert root["gen_ai.operation.name"] == "chat"
    assert root["penstock.cost.microusd"] == str(made.generated.cost.paid_microusd)
    assert root["penstock.cache.rule"] == made.generated.cache.rule


async def test_a_stream_is_one_trace_too(api: Api, made: Made) -> None:
    """The lease that the first conversation was granted covers the later ones."""
    await tree(
        api,
        made.streamed.trace_id,
        """
        router: RouterService/GenerateStream (server)
          router: BatcherService/ComputeStream (client)
            batcher: BatcherService/ComputeStream (server)
              batcher: InferenceService/ComputeStream (client)
                inference-upstream: InferenceService/ComputeStream (server)
                  inference-upstream: upstream (client)
        """,
    )


async def test_nothing_that_people_wrote_is_recorded(api: Api, made: Made) -> None:
    async def complete() -> pb.GetTraceResponse:
        shown = await trace(api, made.generated.trace_id)
        assert len(as_recorded(lines_of(shown))) == (7 if SHAPE == "cell" else 10)
        return shown

    shown = await eventually(complete, not_yet=(grpc.aio.AioRpcError,))
    told = [value for row in shown.spans for value in row.attributes.values()]
    assert not any("traced twice" in value for value in told)


async def test_a_callers_trace_goes_on_and_shows_where_the_error_began(
    api: Api, made: Made
) -> None:
    shown = await tree(
        api,
        made.failed,
        """
        router: RouterService/Embed (server)
        """,
    )
    (root,) = shown.spans
    assert root.parent_id == "b7ad6b7169203331"
    assert root.error == "INVALID_ARGUMENT"
    assert shown.error_origin_span_id == root.span_id
    assert (shown.summary.error, shown.summary.tenant) == ("INVALID_ARGUMENT", made.caller.key)


async def test_traces_are_found_by_whom_and_what_they_concern(api: Api, made: Made) -> None:
    async def found(**fields: object) -> set[str]:
        request = pb.SearchTracesRequest(tenant=made.caller.key, **fields)  # type: ignore[arg-type]
        answer = await api.telemetry.SearchTraces(request, metadata=api.token)
        return {row.trace_id for row in answer.traces}

    everything = {
        made.miss.trace_id,
        made.hit.trace_id,
        made.generated.trace_id,
        made.streamed.trace_id,
        made.failed,
    }

    async def all_there() -> None:
        assert everything <= await found(name="RouterService/")
        assert made.generated.trace_id in await found(service="inference-upstream")

    await eventually(all_there)
    assert await found(run_id="run-t") == {made.miss.trace_id}
    assert await found(errors_only=True) == {made.failed}
    assert made.miss.trace_id not in await found(service="inference-upstream")
    assert not await found(min_duration_ms=60_000)
    assert len(await found(limit=1)) == 1


async def test_what_services_tell_each_other_begins_no_trace(api: Api, made: Made) -> None:
    for name in ("RegistryService/", "ComputeBatch", "ListQueues"):
        request = pb.SearchTracesRequest(name=name)
        answer = await api.telemetry.SearchTraces(request, metadata=api.token)
        # what fails or takes a second is recorded all the same
        assert not [row for row in answer.traces if not row.error and row.duration_ms < 1_000]


async def test_requests_are_followed_as_they_end(caller: Caller) -> None:
    api = caller.api
    request = pb.WatchRequestsRequest(tenant=caller.key)
    call = api.telemetry.WatchRequests(request, metadata=api.token, timeout=20)
    watching = asyncio.create_task(call.read())
    await api.telemetry.GetIntake(pb.GetIntakeRequest(), metadata=api.token)  # the watch has begun
    receipt = (await caller.embed("watched")).receipt
    message = await watching
    while message.trace.name != "RouterService/Embed":  # a lease may be renewed for the caller
        assert message.trace.tenant == caller.key
        message = await call.read()
    assert message.trace.trace_id == receipt.trace_id
    assert message.trace.tenant == caller.key
    call.cancel()


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("GetTrace", pb.GetTraceRequest(trace_id="abc"), "INVALID_ARGUMENT", "trace_id"),
        ("GetTrace", pb.GetTraceRequest(trace_id="x" * 32), "INVALID_ARGUMENT", "trace_id"),
        ("GetTrace", pb.GetTraceRequest(trace_id="f" * 32), "NOT_FOUND", "trace_id"),
        ("SearchTraces", pb.SearchTracesRequest(limit=1001), "INVALID_ARGUMENT", "limit"),
        (
            "SearchTraces",
            pb.SearchTracesRequest(window=pb.Window(from_unix_ms=2, to_unix_ms=1)),
            "INVALID_ARGUMENT",
            "window.from_unix_ms",
        ),
        ("GetCosts", pb.GetCostsRequest(by=9), "INVALID_ARGUMENT", "by"),  # type: ignore[arg-type]
        (
            "GetCriticalPath",
            pb.GetCriticalPathRequest(from_percentile=90, to_percentile=10),
            "INVALID_ARGUMENT",
            "from_percentile",
        ),
    ],
)
async def test_a_bad_question_is_named(
    api: Api, method: str, request_: object, code: str, field: str
) -> None:
    told = await refused(getattr(api.telemetry, method)(request_, metadata=api.token))
    assert (told.code, told.field) == (code, field)
