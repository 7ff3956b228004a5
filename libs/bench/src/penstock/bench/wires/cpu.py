"""CPU time to read a chunk of a stream: bytes in, an encoded message out, no I/O."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.bench.harness.intervals import Interval, bootstrap
from penstock.bench.wires.playing import TASK, target_for
from penstock.inference_upstream.adapters import WIRES
from penstock.inference_upstream.providers import WireName

ROUNDS, QUICK_ROUNDS = 15, 3
CHUNKS = 5_000


class Sample(NamedTuple):
    """A wire's chunk of text as its provider sends it, and the events that go before it."""

    provider: str
    chunk: Mapping[str, Any]
    event: str = ""
    head: bytes = b""

    @property
    def data(self) -> bytes:
        """The chunk's JSON."""
        return json.dumps(self.chunk, separators=(",", ":")).encode()

    @property
    def frame(self) -> bytes:
        """The chunk's event."""
        name = f"event: {self.event}\n".encode() if self.event else b""
        return name + b"data: " + self.data + b"\n\n"


SAMPLES: Mapping[WireName, Sample] = {
    "openai-chat": Sample(
        "openai",
        {
            "id": "chatcmpl-ABfw1e5abtU8OwGr15vOreYVb2MiF",
            "object": "chat.completion.chunk",
            "created": 1727346169,
            "model": "gpt-x-2026-08-06",
            "system_fingerprint": "fp_5050236cbd",
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": " token"},
                    "logprobs": None,
                    "finish_reason": None,
                }
            ],
        },
    ),
    "anthropic-messages": Sample(
        "anthropic",
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": " token"},
        },
        "content_block_delta",
        b'data: {"type":"message_start","message":{"model":"m"}}\n\n'
        b'data: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n',
    ),
}


def figures(*, quick: bool) -> tuple[dict[str, float], dict[str, Interval]]:
    """The multiple for each wire, and the larger one, with their intervals over the rounds."""
    rounds = [
        {wire: _ratio(wire, sample) for wire, sample in SAMPLES.items()}
        for _ in range(QUICK_ROUNDS if quick else ROUNDS)
    ]
    return _figures(rounds), bootstrap(rounds, _figures, "rounds")


def _figures(rounds: Sequence[Mapping[WireName, float]]) -> dict[str, float]:
    """Medians of the rounds; in a round both sides take turns."""
    openai, anthropic = (
        statistics.median(ratios[wire] for ratios in rounds)
        for wire in ("openai-chat", "anthropic-messages")
    )
    return {
        "stream_cpu_vs_json": max(openai, anthropic),
        "openai_cpu_vs_json": openai,
        "anthropic_cpu_vs_json": anthropic,
    }


def _ratio(wire: WireName, sample: Sample) -> float:
    data, frame = sample.data, sample.frame
    stream = WIRES[wire].stream(TASK, target_for(sample.provider))
    stream.feed(sample.head)

    def parse() -> None:
        for _ in range(CHUNKS):
            orjson.loads(data)

    def read() -> None:
        for _ in range(CHUNKS):
            for chunk in stream.feed(frame):
                pb.ComputeStreamResponse(chunk=chunk).SerializeToString()

    return _cpu_s(read) / _cpu_s(parse)


def _cpu_s(work: Callable[[], None]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s
