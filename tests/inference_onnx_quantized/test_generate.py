"""`generate` on a tiny decoder, over a real server: streams, stop strings, cancel, bad input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel, checksum, parse_card, write_card
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
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN, peer_over
from tiny_decoder import CONTEXT_TOKENS, write_decoder

JSON_OBJECT = pb.ResponseFormat(kind=pb.RESPONSE_FORMAT_KIND_JSON_OBJECT)
REQUIRED = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH


@dataclass
class Generator:
    """A service with one compute thread and two decoders: `letters` and `endless`."""

    peer: Peer
    meter: LoadMeter

    async def answer(self, task: pb.Task) -> pb.TaskResult:
        """The whole answer of `letters`."""
        response: pb.ComputeResponse = await self.peer.call(
            "Compute", pb.ComputeRequest(task=task), Call()
        )
        return response.result


@pytest.fixture
async def generator(tmp_path: Path) -> AsyncIterator[Generator]:
    write_decoder(tmp_path / "models" / "letters" / "1")
    write_decoder(tmp_path / "models" / "endless" / "1", "endless", endless=True)
    repository = ModelRepository(tmp_path / "models", 1 << 30, load_model)
    repository.load("letters")
    repository.load("endless")
    meter = LoadMeter(1)
    threads = ComputeThreads(1, meter, SystemClock())
    settings = InferenceSettings(home=tmp_path, models=("letters",))
    servicer = InferenceServicer(settings, repository, threads, meter, SystemClock(), NO_TELEMETRY)
    async with peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as peer:
        yield Generator(peer, meter)
    assert (meter.in_flight, meter.running) == (0, 0)
    threads.close()


def generate(text: str, **fields: object) -> pb.Task:
    message = pb.Message(role=pb.ROLE_USER, content=text)
    task = pb.GenerateTask(messages=[message], **fields)  # type: ignore[arg-type]
    return pb.Task(generate=task)


async def test_an_answer_ends_where_the_model_ends_it(generator: Generator) -> None:
    result = await generator.answer(generate("hello w"))
    assert (result.generate.message.role, result.generate.message.content) == (
        pb.ROLE_ASSISTANT,
        "xyzø",
    )
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
async def test_an_answer_ends_at_a_stop_string_or_its_length(
    generator: Generator, fields: dict[str, object], text: str, reason: int
) -> None:
    result = await generator.answer(generate("a", **fields))
    assert (result.generate.message.content, result.generate.finish_reason) == (text, reason)


async def test_a_stream_shows_each_piece_and_never_a_part_of_a_stop_string(
    generator: Generator,
) -> None:
    request = pb.ComputeStreamRequest(task=generate("a", stop=["fgh"]))
    parts = [part async for part in generator.peer.stream("ComputeStream", request, Call())]
    assert [part.chunk.delta for part in parts[:-1]] == ["b", "c", "d", "e", ""]
    assert [part.chunk.finish_reason for part in parts[:-1]] == [0, 0, 0, 0, STOP]
    assert parts[-1].result.generate.message.content == "bcde"
    assert parts[-1].result.revision.startswith("1-")


async def test_leaving_a_stream_frees_its_slot(generator: Generator) -> None:
    """There is one slot, which an endless answer would hold for a million tokens."""
    request = pb.ComputeStreamRequest(model="endless", task=generate("a"))
    stream = generator.peer.stream("ComputeStream", request, Call())
    async with aclosing(stream) as parts:  # type: ignore[type-var]
        async for part in parts:
            if part.chunk.delta:
                break
    assert (await generator.answer(generate("y"))).generate.message.content == "zø"


async def test_cancelling_a_whole_answer_frees_its_slot(generator: Generator) -> None:
    request = pb.ComputeRequest(model="endless", task=generate("a"))
    endless = asyncio.create_task(generator.peer.call("Compute", request, Call()))
    await eventually(lambda: generator.meter.running == 1)
    endless.cancel()
    assert (await generator.answer(generate("y"))).generate.message.content == "zø"


async def test_answers_that_are_asked_for_at_once_do_not_mix(generator: Generator) -> None:
    answers = await asyncio.gather(*(generator.answer(generate(letter)) for letter in "uvwxy"))
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
        (generate(""), "task.generate.messages"),
        (generate("a" * CONTEXT_TOKENS), "task.generate.messages"),
        (generate("a" * 40_000), "task.generate.messages[0].content"),
        (generate("a", temperature=float("nan")), "task.generate.temperature"),
        (generate("a", temperature=3.0), "task.generate.temperature"),
        (generate("a", top_p=0.0), "task.generate.top_p"),
        (generate("a", stop=[""]), "task.generate.stop"),
        (generate("a", max_tokens=1 << 30), "task.generate.max_tokens"),
        (generate("a", tools=[pb.Tool(name="f")]), "task.generate.tools"),
        (generate("a", response_format=JSON_OBJECT), "task.generate.response_format"),
        (generate("a", tool_choice=REQUIRED), "task.generate.tool_choice"),
        (generate("a", top_logprobs=0), "task.generate.top_logprobs"),
        (generate("a", extra_json="{}"), "task.generate.extra_json"),
        (
            pb.Task(
                generate=pb.GenerateTask(
                    messages=[pb.Message(role=pb.ROLE_TOOL, content="1", tool_call_id="x")]
                )
            ),
            "task.generate.messages[0]",
        ),
        (pb.Task(embed=pb.EmbedTask(texts=["a"])), "task"),
    ],
)
async def test_bad_input_names_its_field(generator: Generator, task: pb.Task, field: str) -> None:
    with pytest.raises(Fault) as caught:
        await generator.answer(task)
    assert (caught.value.code.name, caught.value.field) == ("INVALID_ARGUMENT", field)


@pytest.fixture
def decoder_folder(tmp_path: Path) -> Path:
    write_decoder(tmp_path / "a" / "1")
    return tmp_path / "a" / "1"


def truncate_model(folder: Path) -> None:
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:500])


def test_a_decoder_that_differs_from_its_card_is_refused(decoder_folder: Path) -> None:
    truncate_model(decoder_folder)
    with pytest.raises(BadModel, match="checksum"):
        load_model(decoder_folder)


def test_a_decoder_that_the_library_cannot_load_is_refused(decoder_folder: Path) -> None:
    """Although its card agrees with the file."""
    card = parse_card(decoder_folder)
    truncate_model(decoder_folder)
    files = {**card.files, "model.onnx": checksum(decoder_folder / "model.onnx")}
    write_card(decoder_folder, card.model_copy(update={"files": files}))
    with pytest.raises(BadModel, match="onnxruntime-genai cannot load it"):
        load_model(decoder_folder)


def test_a_conversation_is_rendered_by_the_models_chat_template(tmp_path: Path) -> None:
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template = "{{ bos_token }}" + turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    config = {"chat_template": template, "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    prompt = load_template(tmp_path)([("system", "be brief"), ("user", "hi")])
    assert prompt == "<s><system>be brief<user>hi<assistant>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('turns must alternate') }}", "turns must alternate"),
        ("{{ messages.__class__.__mro__ }}", "does not take this conversation"),
    ],
)
def test_a_template_may_refuse_a_conversation_and_reaches_nothing_else(
    tmp_path: Path, template: str, message: str
) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(BadInput, match=message):
        load_template(tmp_path)([("user", "hi")])


def test_a_template_that_is_not_jinja_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(BadModel, match="template"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("stop_strings", "pieces", "shown"),
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
    stop_strings: list[str], pieces: list[str], shown: str
) -> None:
    stops, text = StopStrings(stop_strings), ""
    for piece in pieces:
        if not stops.is_found:
            text += stops.push(piece)
    assert text + stops.flush() == shown
