"""`generate` on a decoder that the tests build themselves, over a real server: streams, stop
strings, ends, cancel, bad input.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads
from penstock.inference_onnx_quantized.load_meter import LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel, ModelFile, parse_card, write_card
from penstock.onnx.chat_template import load_template
from penstock.onnx.loading import load_model
from penstock.onnx.session import BadInput
from penstock.onnx.stop_strings import StopStrings
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import SystemClock
from penstock.testkit.server import TOKEN, peer_over
from tiny_decoder import CONTEXT, write_decoder

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH


@dataclass
class Served:
    peer: Peer
    meter: LoadMeter
    repository: ModelRepository


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write_decoder(tmp_path / "models" / "letters" / "1")
    write_decoder(tmp_path / "models" / "endless" / "1", "endless", endless=True)
    repository = ModelRepository(tmp_path / "models", 1 << 30, load_model)
    repository.load("letters")
    repository.load("endless")
    meter = LoadMeter(1)
    runner = ComputeThreads(1, meter, SystemClock())
    settings = InferenceSettings(home=tmp_path, models=("letters",))
    servicer = InferenceServicer(settings, repository, runner, meter, SystemClock(), NO_TELEMETRY)
    async with peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as peer:
        yield Served(peer, meter, repository)
    assert (meter.in_flight, meter.running) == (0, 0)
    runner.close()


def said(text: str, **fields: object) -> pb.Task:
    return pb.Task(
        generate=pb.GenerateTask(messages=[pb.Message(role="user", content=text)], **fields)
    )  # type: ignore[arg-type]


async def whole(served: Served, task: pb.Task) -> pb.TaskResult:
    answer: pb.ComputeResponse = await served.peer.call(
        "Compute", pb.ComputeRequest(task=task), Call()
    )
    return answer.result


async def test_the_model_ends_its_answer(served: Served) -> None:
    result = await whole(served, said("hello w"))
    assert (result.generate.message.role, result.generate.message.content) == ("assistant", "xyzø")
    assert result.generate.finish_reason == STOP
    assert (result.usage.input_tokens, result.usage.output_tokens) == (7, 6)


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"max_tokens": 3}, "bcd", LENGTH),
        ({"stop": ["fgh"]}, "bcde", STOP),
        ({"stop": ["xx", "gh", "fghij"]}, "bcdef", STOP),
        ({"stop": ["defz"], "max_tokens": 5}, "bcdef", LENGTH),
        ({"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["e"]}, "bcd", STOP),
    ],
)
async def test_stop_strings_and_length(
    served: Served, fields: dict[str, object], text: str, reason: int
) -> None:
    result = await whole(served, said("a", **fields))
    assert (result.generate.message.content, result.generate.finish_reason) == (text, reason)


async def test_a_stream_shows_each_piece_and_never_a_part_of_a_stop_string(served: Served) -> None:
    request = pb.ComputeStreamRequest(task=said("a", stop=["fgh"]))
    parts = [part async for part in served.peer.stream("ComputeStream", request, Call())]
    assert [part.chunk.delta for part in parts[:-1]] == ["b", "c", "d", "e", ""]
    assert [part.chunk.finish_reason for part in parts[:-1]] == [0, 0, 0, 0, STOP]
    assert parts[-1].result.generate.message.content == "bcde"
    assert parts[-1].result.revision.startswith("1-")


async def test_cancel_frees_the_slot_at_once(served: Served) -> None:
    """There is one slot; an endless answer holds it for a million tokens unless the cancel frees
    it.
    """
    request = pb.ComputeStreamRequest(model="endless", task=said("a"))
    seen = 0
    stream = served.peer.stream("ComputeStream", request, Call())
    async for part in stream:
        seen += len(part.chunk.delta)
        if seen >= 3:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    assert (await whole(served, said("y"))).generate.message.content == "zø"
    assert seen == 3


async def test_a_cancelled_whole_answer_frees_the_slot_too(served: Served) -> None:
    asked = asyncio.create_task(
        served.peer.call("Compute", pb.ComputeRequest(model="endless", task=said("a")), Call())
    )
    while served.meter.running == 0:
        await asyncio.sleep(0)
    asked.cancel()
    assert (await whole(served, said("y"))).generate.message.content == "zø"


async def test_many_answers_side_by_side(served: Served) -> None:
    answers = await asyncio.gather(*(whole(served, said(letter)) for letter in "uvwxy"))
    assert [answer.generate.message.content for answer in answers] == [
        "vwxyzø",
        "wxyzø",
        "xyzø",
        "yzø",
        "zø",
    ]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (pb.Task(generate=pb.GenerateTask()), "task.generate.messages"),
        (said(""), "task.generate.messages"),
        (said("a" * CONTEXT), "task.generate.messages"),
        (said("a" * 40_000), "task.generate.messages[0].content"),
        (said("a", temperature=float("nan")), "task.generate.temperature"),
        (said("a", temperature=3.0), "task.generate.temperature"),
        (said("a", top_p=0.0), "task.generate.top_p"),
        (said("a", stop=[""]), "task.generate.stop"),
        (said("a", max_tokens=1 << 30), "task.generate.max_tokens"),
        (said("a", tools=[pb.Tool(name="f")]), "task.generate.tools"),
        (said("a", response_schema_json="{}"), "task.generate.response_schema_json"),
        (said("a", tool_choice="required"), "task.generate.tool_choice"),
        (
            pb.Task(
                generate=pb.GenerateTask(
                    messages=[pb.Message(role="tool", content="1", tool_call_id="x")]
                )
            ),
            "task.generate.messages[0]",
        ),
        (pb.Task(embed=pb.EmbedTask(texts=["a"])), "task"),
    ],
)
async def test_bad_input_names_its_field(served: Served, task: pb.Task, field: str) -> None:
    with pytest.raises(Fault) as caught:
        await whole(served, task)
    assert (caught.value.code.name, caught.value.field) == ("INVALID_ARGUMENT", field)


def test_a_broken_decoder_is_refused(tmp_path: Path) -> None:
    write_decoder(tmp_path / "a" / "1")
    card = parse_card(tmp_path / "a" / "1")
    model = tmp_path / "a" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:500])
    with pytest.raises(BadModel, match="checksum"):
        load_model(model.parent)
    files = {**card.files, "model.onnx": ModelFile(size_bytes=500, sha256=_digest(model))}
    write_card(model.parent, card.model_copy(update={"files": files}))
    with pytest.raises(BadModel, match="onnxruntime-genai cannot load it"):
        load_model(model.parent)


def _digest(path: Path) -> str:
    from penstock.onnx.card import checksum

    return checksum(path).sha256


def test_the_models_own_chat_template(tmp_path: Path) -> None:
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template = "{{ bos_token }}" + turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    config = {"chat_template": template, "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert (
        load_template(tmp_path)([("system", "be brief"), ("user", "hi")])
        == "<s><system>be brief<user>hi<assistant>"
    )
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('turns must alternate') }}")
    with pytest.raises(BadInput, match="turns must alternate"):
        load_template(tmp_path)([("user", "hi")])
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(BadInput):
        load_template(tmp_path)([("user", "hi")])
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(BadModel, match="template"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        ([], ["a", "b"], "ab"),
        (["cd"], ["ab", "c", "d", "e"], "ab"),
        (["cd"], ["ab", "c", "x"], "abcx"),
        (["aab"], ["a", "a", "a", "b"], "a"),
        (["b", "ab"], ["xab"], "x"),
        (["end"], ["the e", "n"], "the en"),
    ],
)
def test_a_stop_string_may_lie_across_pieces(
    stops: list[str], pieces: list[str], shown: str
) -> None:
    watch, text = StopStrings(stops), ""
    for piece in pieces:
        if not watch.met:
            text += watch.show(piece)
    assert text + watch.rest() == shown
