"""Requests that go to a provider as they came: which do, and what of them changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.openai_chat.hidden_usage import HiddenUsage
from penstock.inference_upstream.protocols.passing_on import AsSent, Translated, passed_on
from penstock.inference_upstream.protocols.wire import Target
from penstock.inference_upstream.providers import PROVIDERS
from penstock.inference_upstream.switches import Switches
from penstock.rpc.errors import Fault
from penstock.tasks.generate import Generate
from penstock.tasks.wire_request import MAX_WIRE_BODY_BYTES
from penstock.testkit.raw_upstream import RawAnswer, in_pieces
from penstock.testkit.recordings import Recording, recordings

from ..rig import CALL, Rig, asking, serving

CHAT, MESSAGES = pb.WIRE_OPENAI_CHAT, pb.WIRE_ANTHROPIC_MESSAGES
NUMBERS = {"openai-chat": CHAT, "anthropic-messages": MESSAGES}
ON = {"same_wire": True}
TURNS = [{"role": "user", "content": "go"}]
MISREAD = "not one JSON object in UTF-8 that all readers read alike"
AWKWARD = (
    '\n{ "messages" : [{"role":"user","content":"gr\\u00fc\\u00dfe \\ud83d\\ude00 ∮"}],\t"x":1e2,'
    '"mod\\u0065l": "alias" , "stream":%s,"new":[{}, null ],'
    '"stream_options":{"include_usage":true}}\n'
)


def task_of(body: bytes | str, wire: pb.Wire = CHAT, **fields: Any) -> pb.GenerateTask:
    given = body.encode() if isinstance(body, str) else body
    return asking(wire_request=pb.WireRequest(wire=wire, body=given), **fields)


def body_of(**fields: Any) -> str:
    return json.dumps({"model": "alias", "messages": TURNS, **fields})


def way(
    body: bytes | str,
    /,
    stream: bool = False,
    wire: pb.Wire = CHAT,
    max_tokens: int = 0,
    **switches: Any,
) -> AsSent | Translated:
    target = Target("model-x", Switches(**{"same_wire": True, **switches}))
    return passed_on(task_of(body, wire, max_tokens=max_tokens), wire, target, stream=stream)


def sent(*args: Any, **fields: Any) -> bytes:
    went = way(*args, **fields)
    assert isinstance(went, AsSent), went
    return went.body


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats(0, 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OURS = {"model", "stream", "n", "best_of", "num_return_sequences", "candidate_count", "max_tokens"}
OURS |= {"max_completion_tokens", "stream_options", "tool_choice"}


@given(
    st.dictionaries(st.text().filter(lambda name: name not in OURS), values, max_size=4),
    st.dictionaries(st.text().filter(lambda name: name not in OURS), values, max_size=4),
    st.booleans(),
    st.sampled_from([None, 0, 3]),
)
def test_only_the_models_name_differs(
    before: dict[str, Any], after: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    after = {name: value for name, value in after.items() if name not in before}
    fields = {**before, "model": "alias-7f3a", **after}
    text = json.dumps(fields, ensure_ascii=ascii_only, indent=indent)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return
    name = json.dumps("alias-7f3a").encode()
    at = body.rindex(name) if "alias-7f3a" not in json.dumps([before, after]) else -1
    if at >= 0:
        assert sent(body) == body[:at] + b'"model-x"' + body[at + len(name) :]


@pytest.mark.parametrize("stream", [False, True])
def test_blanks_escapes_and_new_fields_stay(stream: bool) -> None:
    body = AWKWARD % str(stream).lower()
    assert sent(body, stream) == body.replace('"alias"', '"model-x"').encode()


def test_a_body_with_the_upstreams_own_name_is_not_touched() -> None:
    body = body_of(model="model-x", temperature=0.10)
    assert sent(body) == body.encode()


def test_a_length_that_a_limit_has_set_stands_first() -> None:
    body = body_of()
    went = sent(body, max_tokens=77)
    assert went == (b'{"max_completion_tokens":77,' + body[1:].encode()).replace(
        b"alias", b"model-x"
    )
    nulled = body_of(max_completion_tokens=None)
    assert json.loads(sent(nulled, max_tokens=77))["max_completion_tokens"] == 77


@pytest.mark.parametrize(
    ("body", "switches", "why"),
    [
        ("[1]", {}, MISREAD),
        (b'{"model":"a\xff"}', {}, MISREAD),
        ('{"model":"a","model":"b"}', {}, MISREAD),
        ('{"model":"a","x":{"y":1,"y":2}}', {}, MISREAD),
        (body_of() + "x", {}, MISREAD),
        (body_of()[:-1], {}, MISREAD),
        ("[" * 50_000, {}, MISREAD),
        ('{"model":' + "[" * 50_000, {}, MISREAD),
        (body_of(model=None), {}, "no model"),
        (body_of(stream=True), {}, "another kind of answer"),
        (body_of(n=2), {}, "several answers"),
        (body_of(best_of=2), {}, "several answers"),
        (body_of(max_completion_tokens=5), {}, "another length"),
        (body_of(max_tokens=5), {}, "another length"),
        (body_of(max_tokens=5, max_completion_tokens=None), {}, "two lengths"),
        (body_of(stream_options="all"), {}, "stream_options is no object"),
        (body_of(stream_options={}), {"stream_usage": False}, "the server has no stream_options"),
        (body_of(user="u"), {"omit": ("user",)}, "the operator leaves out user"),
        (body_of(), {"same_wire": False}, "the operator has not switched it on"),
        (body_of(), {"body": {"x": 1}}, "the operator adds fields"),
        (body_of(top_p=1), {"temperature": False}, "the operator leaves out top_p"),
        (body_of(), {"system_turns": "first"}, "the server takes turns of another form"),
        (body_of(tools=[]), {"strict_schemas": False}, "the server has no tools"),
    ],
)  # fmt: skip
def test_what_the_bytes_do_not_say_is_translated(
    body: str | bytes, switches: dict[str, Any], why: str
) -> None:
    assert way(body, **switches) == Translated(why)


@pytest.mark.parametrize(
    ("given", "sent_as"),
    [
        ({"max_tokens": 5}, ("max_completion_tokens", "max_tokens")),
        ({"max_completion_tokens": 5}, ("max_completion_tokens", "max_tokens")),
    ],
)
def test_a_length_has_the_name_that_the_server_knows(
    given: dict[str, int], sent_as: tuple[str, str]
) -> None:
    body, ((name, _),) = body_of(**given, max_tokensy=1), given.items()
    for parameter in sent_as:
        went = sent(body, max_tokens=5, length_parameter=parameter)
        expected = body.replace(f'"{name}"', f'"{parameter}"').replace("alias", "model-x")
        assert went == expected.encode()
    nulled = sent(body_of(max_tokens=None), max_tokens=7)
    assert json.loads(nulled) == json.loads(body_of(model="model-x", max_completion_tokens=7))


def test_the_length_of_messages_is_not_renamed() -> None:
    body = body_of(max_tokens=5, max_completion_tokens=9)
    assert sent(body, max_tokens=5, wire=MESSAGES) == body.replace("alias", "model-x").encode()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", '"stream_options":{"include_usage":true},'),
        ("null", '{"include_usage":true}'),
        ("{ }", '{"include_usage":true}'),
        ('{"include_usage" : false}', '{"include_usage" : true}'),
        ('{"include_usage":null, "x":[1.0]}', '{"include_usage":true, "x":[1.0]}'),
        ('{ "x":{"include_usage":true} }', '{"include_usage":true, "x":{"include_usage":true} }'),
    ],
)
def test_a_stream_is_made_to_tell_its_usage(options: str, told: str) -> None:
    body = body_of(model="model-x", stream=True)
    if options:
        text = body[:-1] + f', "stream_options" : {options} ' + "}"
        expected = text.replace(options, told)
    else:
        text, expected = body, "{" + told + body[1:]
    went = way(text, stream=True)
    assert isinstance(went, AsSent)
    assert (went.body.decode(), went.hides_usage) == (expected, True)


def test_a_stream_that_tells_its_usage_is_not_touched() -> None:
    asking = body_of(model="model-x", stream=True, stream_options={"include_usage": True})
    anthropic = body_of(model="model-x", stream=True)
    for body, wire in ((asking, CHAT), (anthropic, MESSAGES)):
        went = way(body, stream=True, wire=wire)
        assert isinstance(went, AsSent)
        assert (went.body, went.hides_usage) == (body.encode(), False)


def without_usage(body: bytes) -> bytes:
    """A stream without its events of no choices that tell the usage, found line by line."""
    kept, event = [], b""
    for line in body.splitlines(keepends=True):
        event += line
        if line.strip(b"\r\n") and not event.startswith(b"{"):
            continue
        data = event.strip(b"\r\n\xef\xbb\xbf").removeprefix(b"data:").strip()
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = {}
        if not (chunk.get("choices") == [] and chunk.get("usage")):
            kept.append(event)
        event = b""
    return b"".join(kept) + event


def test_the_event_of_the_usage_stays_here_and_no_other_byte_differs() -> None:
    hidden = 0
    chats = [made for made in recordings() if made.wire == "openai-chat" and made.is_stream]
    for made in chats:
        expected = without_usage(made.body)
        hidden += expected != made.body
        for size in (1, 7, 100, 65_536):
            passing = HiddenUsage()
            came = [passing.feed(piece) for piece in in_pieces(made.body, size)]
            assert b"".join([*came, passing.end()]) == expected, (made, size)
    assert hidden >= 3


async def test_a_stream_without_usage_is_metered_and_its_bytes_pass() -> None:
    streams = [
        made
        for made in recordings()
        if made.wire == "openai-chat" and made.is_stream and "reason" not in made.expect
    ]
    for made, size in ((made, size) for made in streams for size in (1, 4_096)):
        answer = RawAnswer(in_pieces(made.body, size))
        async with serving(answer, wire=made.wire, switches=ON) as rig:
            task = task_of(body_of(stream=True))
            request = pb.ComputeStreamRequest(model="m", task=pb.Task(generate=task))
            parts = [part async for part in rig.service.ComputeStream(request, CALL)]
        chunks = [part.chunk for part in parts if part.HasField("chunk")]
        assert chunks[0].wire_piece
        assert b"".join(chunk.wire_piece for chunk in chunks) == without_usage(made.body)
        usage = parts[-1].result.usage
        told = made.expect.get("usage", [])
        if isinstance(told, list):
            assert [usage.input_tokens, usage.output_tokens][: len(told)] == told[:2], made


def test_another_wire_is_translated() -> None:
    went = passed_on(task_of(body_of(), MESSAGES), CHAT, Target("m", Switches()), stream=False)
    assert went == Translated("another wire")


def asked_for(made: Recording) -> str:
    return AWKWARD % str(made.is_stream).lower()


async def answered(rig: Rig, made: Recording, body: str) -> tuple[bytes, bytes]:
    """What the upstream was sent, and what came of its answer's bytes, failures included."""
    task = task_of(body, NUMBERS[made.wire])
    came = b""
    try:
        if made.is_stream:
            request = pb.ComputeStreamRequest(model="m", task=pb.Task(generate=task))
            async for part in rig.service.ComputeStream(request, CALL):
                came += part.chunk.wire_piece
        else:
            came = (await rig.whole(task)).generate.wire_body
    except Fault as fault:
        if fault.provider_error is not None:
            came += fault.provider_error.body
    return rig.upstream.requests[-1].raw, came


@pytest.mark.parametrize("size", [11, 65_536])
async def test_no_byte_differs_either_way(size: int) -> None:
    differing, compared = [], 0
    for made in recordings():
        kind = "text/event-stream" if made.is_stream else "application/json"
        answer = RawAnswer(in_pieces(made.body, size), 200, kind)
        async with serving(answer, wire=made.wire, switches=ON) as rig:
            body = asked_for(made)
            went, came = await answered(rig, made, body)
        compared += 1
        if went != body.replace('"alias"', '"model-x"').encode():
            differing.append(f"{made}: sent")
        if not made.body.startswith(came) or ("reason" not in made.expect and came != made.body):
            differing.append(f"{made}: answered")
    assert compared >= 40
    assert differing == []


async def test_headers_of_the_protocol_go_along_and_others_do_not() -> None:
    task = task_of(body_of(), MESSAGES)
    task.wire_request.headers.update(
        {
            "anthropic-beta": "b-1",
            "anthropic-version": "2099-01-01",
            "x-api-key": "k",
            "cookie": "c",
        }
    )
    body = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}]}
    body |= {"stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    answer = RawAnswer([json.dumps(body).encode()], 200, "application/json")
    async with serving(
        answer, wire="anthropic-messages", headers={"cookie": "ours"}, switches=ON
    ) as rig:
        await rig.whole(task)
    seen = rig.upstream.requests[-1].headers
    assert (seen["anthropic-beta"], seen["anthropic-version"]) == ("b-1", "2099-01-01")
    assert seen["cookie"] == "ours"
    assert "x-api-key" not in seen


REFUSAL = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}%s}'
)


@pytest.mark.parametrize(
    ("status", "more", "is_told"),
    [
        (400, b"", True),
        (400, b',"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"', True),
        (400, b',"key":"sk-secret-1234567890"', False),
        (400, b',"x":"' + b"y " * 3000 + b'"', False),
        (529, b"", True),
    ],
)
async def test_a_refusal_is_told_in_the_providers_words(
    status: int, more: bytes, is_told: bool
) -> None:
    body = REFUSAL % more
    async with serving(RawAnswer([body], status, "application/json"), switches=ON) as rig:
        with pytest.raises(Fault) as refused:
            await rig.whole(task_of(body_of()))
        said = refused.value.provider_error
        with pytest.raises(Fault) as translated:
            await rig.whole(asking())
    told = refused.value.reason.value.startswith("UPSTREAM_TOO_LONG") and is_told
    assert (said.body if said else b"") == (body if told else b"")
    assert said is None or said.status == status
    assert translated.value.provider_error is None


@pytest.mark.parametrize(
    ("wire_request", "field"),
    [
        (pb.WireRequest(body=b"{}"), "wire"),
        (pb.WireRequest(wire=CHAT), "body"),
        (pb.WireRequest(wire=CHAT, body=b"x" * (MAX_WIRE_BODY_BYTES + 1)), "body"),
        (pb.WireRequest(wire=CHAT, body=b"{}", headers={"a\r\nb": "c"}), "headers"),
        (pb.WireRequest(wire=CHAT, body=b"{}", headers={"a": "c\nd"}), "headers"),
        (pb.WireRequest(wire=CHAT, body=b"{}", headers={str(i): "" for i in range(17)}), "headers"),
    ],
)  # fmt: skip
def test_a_bad_wire_request_is_refused(wire_request: pb.WireRequest, field: str) -> None:
    with pytest.raises(Fault) as refused:
        Generate().validate(pb.Task(generate=asking(wire_request=wire_request)), "task.")
    assert refused.value.field == f"task.wire_request.{field}"


@pytest.mark.parametrize(
    ("name", "wire", "passes"),
    [("openai", CHAT, True), ("anthropic", MESSAGES, True), ("azure", CHAT, False)],
)
def test_openai_and_anthropic_get_bodies_as_they_came(
    name: str, wire: pb.Wire, passes: bool
) -> None:
    provider = next(each for each in PROVIDERS if each.name == name)
    went = passed_on(task_of(body_of(), wire), wire, Target("m", provider.switches), stream=False)
    assert isinstance(went, AsSent) is passes
