"""The upstream service before a scripted upstream: the protocol both ways, tokens by price tier,
what each fault means, cancel, and the pool.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.protocols.openai_chat.answer import parse_chat
from penstock.inference_upstream.protocols.openai_chat.request import chat_request
from penstock.inference_upstream.protocols.openai_chat.usage import reported_usage
from penstock.inference_upstream.protocols.retry_after import retry_after_s
from penstock.inference_upstream.protocols.wire import Target
from penstock.inference_upstream.settings import Upstream, UpstreamModel, UpstreamsSection
from penstock.inference_upstream.switches import Switches
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.service.clock import SystemClock
from penstock.service.settings import BadConfig
from penstock.tasks.kinds import GENERATE
from penstock.testkit.eventually import eventually
from penstock.testkit.scripted_answers import Pace, log_normal_paces, trace_paces
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream

CALL = Call()
TARGET = Target("m", Switches())
PATIENT_MS = 30_000
"""Longer than any answer here takes, on a busy machine too."""
UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


def task(text: str = "one two three", **more: Any) -> pb.Task:
    made = pb.Task()
    made.generate.messages.add(role=pb.ROLE_SYSTEM, content="Be brief.")
    made.generate.messages.add(role=pb.ROLE_USER, content=text)
    for name, value in more.items():
        setattr(made.generate, name, value)
    return made


def with_schema(schema_json: str) -> pb.Task:
    made = task()
    made.generate.response_format.kind = pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    made.generate.response_format.schema_json = schema_json
    return made


class UpstreamRig:
    """A service before a scripted upstream, called without a network between."""

    def __init__(
        self, upstream: ScriptedUpstream, telemetry: Telemetry = NO_TELEMETRY, **settings: Any
    ) -> None:
        models = (UpstreamModel(name="chat", upstream_name="gpt-x", tasks=("generate", "embed")),)
        section = Upstream.model_validate(
            {
                "name": "up",
                "base_url": upstream.url,
                "models": models,
                "first_byte_timeout_ms": settings.get("silence_timeout_ms", PATIENT_MS),
                "whole_timeout_ms": settings.get("silence_timeout_ms", PATIENT_MS),
                **settings,
            }
        )
        self.client = Client(section, telemetry)
        self.service = UpstreamServicer(self.client, SystemClock(), NO_TELEMETRY)

    async def __aenter__(self) -> UpstreamRig:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def whole(self, made: pb.Task) -> pb.TaskResult:
        return (await self.service.Compute(pb.ComputeRequest(model="chat", task=made), CALL)).result

    async def batch(self, *members: pb.BatchMember) -> dict[int, int]:
        """The status code of each member, by its position."""
        request = pb.ComputeBatchRequest(model="chat", members=members)
        return {
            result.index: result.status.code
            async for response in self.service.ComputeBatch(request, CALL)
            for result in response.results
        }

    async def stream(self, made: pb.Task) -> tuple[list[str], pb.TaskResult | None]:
        deltas, result = [], None
        async for piece in self.service.ComputeStream(
            pb.ComputeStreamRequest(model="chat", task=made), CALL
        ):
            if piece.chunk.delta:
                deltas.append(piece.chunk.delta)
            if piece.HasField("result"):
                result = piece.result
        return deltas, result


async def test_a_whole_and_a_streamed_answer_are_the_same_with_tokens_by_price_tier() -> None:
    def script(body: dict[str, Any]) -> ScriptedAnswer:
        return ScriptedAnswer(
            str(body["messages"][-1]["content"]), cached_tokens=4, reasoning_tokens=5
        )

    async with ScriptedUpstream(script) as upstream, UpstreamRig(upstream) as rig:
        whole = await rig.whole(task())
        deltas, streamed = await rig.stream(task())
        assert streamed is not None
        assert deltas == ["one", " two", " three"]
        for result in (whole, streamed):
            assert result.generate.message.content == "one two three"
            assert result.generate.finish_reason == pb.FINISH_REASON_STOP
            usage = result.usage
            assert (usage.cached_input_tokens, usage.reasoning_tokens, usage.output_tokens) == (
                4,
                5,
                8,
            )
            assert not usage.estimated
            assert result.revision == "gpt-x"


async def test_tokens_that_are_not_reported_are_estimated_and_marked() -> None:
    async with ScriptedUpstream(report_usage=False) as upstream, UpstreamRig(upstream) as rig:
        for result in (await rig.whole(task()), (await rig.stream(task()))[1]):
            assert result is not None
            assert result.usage.estimated
            assert result.usage.input_tokens == GENERATE.estimate(task()).input_tokens


async def test_tools_schemas_and_parameters_are_sent_and_tool_calls_come_back() -> None:

    def script(_: dict[str, Any]) -> ScriptedAnswer:
        return ScriptedAnswer("", tool_calls=(("find", '{"a": 1}'),), finish_reason="tool_calls")

    made = task(max_tokens=7, temperature=0.5)
    made.generate.response_format.kind = pb.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    made.generate.response_format.schema_json = '{"type": "object"}'
    made.generate.tool_choice.functions.append("find")
    made.generate.tools.add(name="find", description="finds", parameters_json='{"type": "object"}')
    made.generate.stop.append("END")
    async with ScriptedUpstream(script) as upstream, UpstreamRig(upstream) as rig:
        for result in (await rig.whole(made), (await rig.stream(made))[1]):
            assert result is not None
            call = result.generate.message.tool_calls[0]
            assert (call.name, call.arguments_json) == ("find", '{"a": 1}')
            assert result.generate.finish_reason == pb.FINISH_REASON_TOOL_CALLS
        sent = upstream.requests[0]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "find"}}
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (sent["max_completion_tokens"], sent["temperature"], sent["stop"]) == (7, 0.5, ["END"])


async def test_the_scripted_upstream_answers_by_a_trace_or_by_a_seeded_model_of_one() -> None:
    trace = [Pace(words=2), Pace(0.001, 0.001, words=5)]
    async with ScriptedUpstream(paces=trace_paces(trace)) as upstream, UpstreamRig(upstream) as rig:
        deltas = [(await rig.stream(task()))[0] for _ in range(3)]
        assert [len(words) for words in deltas] == [2, 5, 2]
        assert "".join(deltas[1]) == "one two three one two"
        whole = await rig.whole(task())
        assert whole.usage.output_tokens == 5
    model, again, other = (
        log_normal_paces(seed, Pace(0.03, 0.002, words=50)) for seed in (1, 1, 2)
    )
    drawn = [model(number) for number in range(400)]
    assert (
        drawn
        == [again(number) for number in range(400)]
        != [other(number) for number in range(400)]
    )
    assert 40 < statistics.median(pace.words for pace in drawn) < 60
    assert 0.025 < statistics.median(pace.first_token_s for pace in drawn) < 0.036


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    async with ScriptedUpstream() as upstream, UpstreamRig(upstream) as rig:
        both = await rig.whole(pb.Task(embed=pb.EmbedTask(texts=["a", "b"])))
        alone = await rig.whole(pb.Task(embed=pb.EmbedTask(texts=["a"])))
        assert both.embed.embeddings[0] == alone.embed.embeddings[0] != both.embed.embeddings[1]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        ("429", EXHAUSTED, "UPSTREAM_RATE_LIMITED"),
        ("529", UNAVAILABLE, "UPSTREAM_OVERLOADED"),
        ("500", UNAVAILABLE, "UPSTREAM_ERROR"),
        ("503", UNAVAILABLE, "UPSTREAM_OVERLOADED"),
        ("408", UNAVAILABLE, "UPSTREAM_OVERLOADED"),
        ("409", UNAVAILABLE, "UPSTREAM_OVERLOADED"),
        ("401", grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_CREDENTIALS"),
        ("403", grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_CREDENTIALS"),
        ("404", grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_NO_MODEL"),
        ("400", grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REFUSED"),
        ("413", grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_TOO_LONG"),
        ("reset", UNAVAILABLE, "UPSTREAM_RESET"),
        ("silence", UNAVAILABLE, "UPSTREAM_SILENT"),
        ("malformed", UNAVAILABLE, "UPSTREAM_MALFORMED"),
        ("content_type", UNAVAILABLE, "UPSTREAM_MALFORMED"),
        ("oversized", UNAVAILABLE, "UPSTREAM_TOO_LARGE"),
        ("cut", UNAVAILABLE, "UPSTREAM_RESET"),
    ],
)
async def test_each_fault_has_its_code_and_reason_and_the_next_call_works(
    fault: Any, code: grpc.StatusCode, reason: str, streamed: bool
) -> None:
    async with (
        ScriptedUpstream(faults=deque([fault])) as upstream,
        UpstreamRig(
            upstream,
            most_answer_bytes=100_000,
            silence_timeout_ms=1_000 if fault == "silence" else PATIENT_MS,
        ) as rig,
    ):
        with pytest.raises(Fault) as failed:
            await (rig.stream(task()) if streamed else rig.whole(task()))
        assert (failed.value.code, failed.value.reason) == (code, reason)
        assert "sk-secret" not in failed.value.message
        if fault in ("429", "529", "503"):
            assert failed.value.retry_after_s == 2.0
        assert (await rig.whole(task())).generate.message.content == "one two three"
        assert rig.client.in_flight == 0


async def test_a_stream_with_an_error_or_without_a_finish_reason_is_not_an_answer() -> None:

    def cut(_: dict[str, Any]) -> ScriptedAnswer:
        return ScriptedAnswer("one two", finish_reason="")

    async with (
        ScriptedUpstream(cut, faults=deque(["error_event"])) as upstream,
        UpstreamRig(upstream) as rig,
    ):
        for reason in ("UPSTREAM_ERROR", "STREAM_CUT"):
            with pytest.raises(Fault) as failed:
                await rig.stream(task())
            assert failed.value.reason == reason


async def test_an_upstream_that_does_not_listen_is_unreachable() -> None:
    async with ScriptedUpstream() as gone:
        pass
    async with UpstreamRig(gone) as rig:
        for asked in (rig.whole, rig.stream):
            with pytest.raises(Fault) as failed:
                await asked(task())
            assert (failed.value.code, failed.value.reason) == (UNAVAILABLE, "UPSTREAM_UNREACHABLE")
        assert (rig.client.errors, rig.client.in_flight) == (2, 0)


async def test_a_call_that_gets_no_connection_is_not_sent() -> None:
    async with (
        ScriptedUpstream(per_word_s=3600.0) as upstream,
        UpstreamRig(
            upstream, most_connections=1, silence_timeout_ms=100, whole_timeout_ms=20_000
        ) as rig,
    ):
        pieces = rig.service.ComputeStream(pb.ComputeStreamRequest(model="chat", task=task()), CALL)
        await anext(pieces)
        with pytest.raises(Fault) as failed:
            await rig.whole(task())
        assert (failed.value.code, failed.value.reason) == (UNAVAILABLE, "UPSTREAM_POOL_FULL")
        await pieces.aclose()  # type: ignore[attr-defined]
        assert len(upstream.requests) == 1


async def test_leaving_a_stream_closes_the_upstream_call_at_once() -> None:
    async with (
        ScriptedUpstream(per_word_s=3600.0) as upstream,
        UpstreamRig(upstream, silence_timeout_ms=3_600_000) as rig,
    ):
        pieces = rig.service.ComputeStream(pb.ComputeStreamRequest(model="chat", task=task()), CALL)
        assert (await anext(pieces)).chunk.delta == "one"
        await pieces.aclose()  # type: ignore[attr-defined]
        # No word is due for an hour, so the upstream sees nothing but the end of the call.
        await upstream.caller_left.wait()
        assert len(upstream.requests) == 1
        assert rig.client.in_flight == 0


async def test_connections_are_reused_and_the_key_is_sent(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-very-secret\n")
    async with (
        ScriptedUpstream(key="sk-very-secret") as upstream,
        UpstreamRig(upstream, key_file=tmp_path / "key") as rig,
    ):
        for _ in range(10):
            await rig.whole(task())
        await asyncio.gather(*(rig.whole(task()) for _ in range(3)))
        assert upstream.connections <= 3
        assert rig.client.reuse_share > 0.7
        assert "secret" not in repr(rig.client.upstream)


@pytest.mark.parametrize("http2", [False, True])
async def test_the_key_is_not_logged_even_at_the_lowest_level(
    http2: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    (tmp_path / "key").write_text("sk-very-secret")
    faults: deque[Any] = deque(["", "429", "reset", "malformed"])
    async with (
        ScriptedUpstream(key="sk-very-secret", faults=faults) as upstream,
        UpstreamRig(upstream, key_file=tmp_path / "key", http2=http2) as rig,
    ):
        await rig.whole(task())
        for _ in range(3):
            with pytest.raises(Fault):
                await rig.whole(task())
    assert ("send_request_headers" in caplog.text) == http2, "httpcore logs what it does"
    assert "sk-very-secret" not in caplog.text


async def test_the_connection_of_a_stream_is_reused() -> None:
    async with ScriptedUpstream() as upstream, UpstreamRig(upstream) as rig:
        for _ in range(10):
            await rig.stream(task())
        assert upstream.connections == 1
        assert rig.client.reuse_share == 0.9


class RecordingFinder:
    """A module finder that finds nothing and records the names that it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_call_imports_nothing(http2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = RecordingFinder()
    async with ScriptedUpstream() as upstream, UpstreamRig(upstream, http2=http2) as rig:
        await rig.stream(task())
        await rig.whole(task())
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
        await rig.stream(task())
        await rig.whole(task())
        monkeypatch.undo()
    # An import that fails is not cached: each one searches the whole path, which once took half of
    # a call's CPU time.
    assert finder.names == []


class Gauges(Telemetry):
    """Telemetry whose gauges can be read."""

    def __init__(self) -> None:
        super().__init__("test")
        self.read: dict[str, Callable[[], float]] = {}

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        self.read[name.removeprefix("penstock.upstream.")] = read

    def values(self, *names: str) -> list[float]:
        return [self.read[name]() for name in names]


async def test_open_and_busy_connections_and_waiting_calls_are_measured() -> None:
    gauges = Gauges()
    names = ("connections_open", "connections_busy", "waiting", "connections_opened", "errors")
    async with (
        ScriptedUpstream(faults=deque(["silence"])) as upstream,
        UpstreamRig(upstream, gauges, most_connections=1, silence_timeout_ms=20_000) as rig,
    ):
        silent = asyncio.create_task(rig.whole(task()))
        await eventually(lambda: bool(upstream.requests))
        second = asyncio.create_task(rig.whole(task()))
        await eventually(lambda: gauges.read["waiting"]() == 1)
        assert gauges.values(*names) == [1, 1, 1, 1, 0]
        silent.cancel()
        await second
        assert gauges.values(*names) == [1, 0, 0, 2, 0]
        with pytest.raises(asyncio.CancelledError):
            await silent


async def test_after_refresh_s_new_calls_get_new_connections_and_running_ones_keep_theirs() -> None:
    async with (
        ScriptedUpstream(per_word_s=0.01) as upstream,
        UpstreamRig(upstream, refresh_s=0) as rig,
    ):
        pieces = rig.service.ComputeStream(pb.ComputeStreamRequest(model="chat", task=task()), CALL)
        await anext(pieces)
        await rig.whole(task())
        assert [piece.chunk.delta async for piece in pieces if piece.chunk.delta] == [
            " two",
            " three",
        ]
        assert upstream.connections == 2


async def test_a_character_that_is_split_over_two_pieces_stays_whole() -> None:
    said = "na\u00efve \u6771\u4eac"
    choice = f'{{"delta": {{"content": "{said}"}}, "finish_reason": "stop"}}'
    event = f'data: {{"choices": [{choice}]}}\n\n'.encode()
    cut = event.index("\u6771".encode()) + 1

    async def halves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
            b"chunked\r\n\r\n"
        )
        for piece in (event[:cut], event[cut:] + b"data: [DONE]\n\n"):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(halves, "127.0.0.1", 0) as server:
        upstream = ScriptedUpstream(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        async with UpstreamRig(upstream) as rig:
            deltas, result = await rig.stream(task())
    assert result is not None
    assert "".join(deltas) == result.generate.message.content == said


async def test_a_member_of_a_batch_ends_at_its_own_deadline_and_leaves_the_upstream() -> None:
    async with (
        ScriptedUpstream(faults=deque(["silence"])) as upstream,
        UpstreamRig(upstream, silence_timeout_ms=3_600_000) as rig,
    ):
        codes = await rig.batch(batch_member(left_s=0.2))
        assert codes == {0: grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}
        await upstream.caller_left.wait()
        assert rig.client.in_flight == 0
        assert await rig.batch(batch_member(left_s=60.0)) == {0: 0}


async def test_a_member_that_is_late_already_is_not_sent_upstream() -> None:
    async with ScriptedUpstream() as upstream, UpstreamRig(upstream) as rig:
        codes = await rig.batch(batch_member(left_s=0.0), batch_member(left_s=60.0))
        assert codes == {0: grpc.StatusCode.DEADLINE_EXCEEDED.value[0], 1: 0}
        assert len(upstream.requests) == 1


def batch_member(left_s: float) -> pb.BatchMember:
    now = time.monotonic()
    context = Call(deadline_s=now + left_s).to_context(now)
    return pb.BatchMember(task=task(), context=context)


async def test_a_bad_request_names_its_field_and_is_not_sent() -> None:
    async with ScriptedUpstream() as upstream, UpstreamRig(upstream) as rig:
        for request, field in (
            (pb.ComputeRequest(model="other", task=task()), "model"),
            (pb.ComputeRequest(model="chat"), "task"),
            (pb.ComputeRequest(model="chat", task=pb.Task(infer=pb.InferTask())), "task"),
            (
                pb.ComputeRequest(model="chat", task=with_schema("{nonsense")),
                "task.response_format.schema_json",
            ),
        ):
            with pytest.raises(Fault) as failed:
                await rig.service.Compute(request, CALL)
            assert failed.value.field == field
        assert not upstream.requests


def test_a_missing_key_and_an_unknown_upstream_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "name": "up",
        "base_url": "http://x",
        "models": [{"name": "m"}],
        "key_env": "NO_SUCH_KEY",
    }
    section = UpstreamsSection.model_validate({"servers": [made]})
    with pytest.raises(BadConfig, match="NO_SUCH_KEY holds no key"):
        section.named("").key()
    with pytest.raises(BadConfig, match="no upstream 'other'; known are up"):
        section.named("other")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("9999", 3600.0),
        ("45.8s", 45.8),
        ("1m30s", 90.0),
        ("nonsense", 0.0),
        ("nan", 0.0),
        ("", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s(value, 60.0) == seconds


def test_an_assistant_turn_with_tool_calls_has_the_form_of_the_protocol() -> None:
    made = task()
    turn = made.generate.messages.add(role=pb.ROLE_ASSISTANT)
    turn.tool_calls.add(id="1", name="find", arguments_json="{}")
    made.generate.messages.add(role=pb.ROLE_TOOL, content="found", tool_call_id="1")
    messages = chat_request(made.generate, TARGET, stream=False)["messages"]
    assert messages[2]["content"] is None
    assert messages[2]["tool_calls"][0]["function"] == {"name": "find", "arguments": "{}"}
    assert messages[3] == {"role": "tool", "content": "found", "tool_call_id": "1"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": {}}',
        (
            b'{"choices": [{"message": {"content": "x", "tool_calls": ["a"]}, "finish_reason": '
            b'"stop"}]}'
        ),
        b'{"choices": [{"message": {"content": "no end"}}]}',
        b'{"choices": []}',
        b"[]",
        b"nothing",
    ],
)
def test_an_answer_of_another_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(Fault) as failed:
        parse_chat(body, task().generate, TARGET)
    assert (failed.value.code, failed.value.reason) == (UNAVAILABLE, "UPSTREAM_MALFORMED")


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "many",
        {"prompt_tokens": -5},
        {"prompt_tokens": None},
        {"prompt_tokens": 5, "completion_tokens": "many"},
        {"prompt_tokens": 5, "prompt_tokens_details": [1]},
    ],
)
def test_a_senseless_report_of_tokens_is_replaced_by_an_estimate(reported: object) -> None:
    assert reported_usage(reported) is None
    choice = {"message": {"content": "four words"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": reported}).encode()
    usage = parse_chat(body, task().generate, TARGET).usage
    assert usage.estimated
    assert usage.output_tokens == 3


async def test_only_a_server_that_resumes_is_asked_to_continue_the_last_turn() -> None:
    made = task()
    made.generate.messages.add(role=pb.ROLE_ASSISTANT, content="one two")
    async with ScriptedUpstream() as upstream:
        for resumes in (True, False):
            async with UpstreamRig(upstream, resumes=resumes) as rig:
                await rig.whole(made)
                await rig.stream(made)
                await rig.whole(task())
    continued = [body.get("continue_final_message", False) for body in upstream.requests]
    assert continued == [True, True, False, False, False, False]
    assert upstream.requests[0]["add_generation_prompt"] is False
