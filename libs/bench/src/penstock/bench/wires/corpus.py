"""Recordings and generated answers, whole and in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from penstock.bench.wires.generated import Answer, random_answer, recorded
from penstock.bench.wires.playing import Played, differences, play, played, read
from penstock.testkit.recordings import DEFAULT_PROVIDERS, Recording, recordings

SEED = 23
MAX_PLACES = 6


def recording_figures(failures: list[str]) -> dict[str, int]:
    """How many recordings there are, and how many come to something else than they must."""
    failed = 0
    for recording in recordings():
        wrong = differences(recording, played(recording))
        failures += wrong
        failed += bool(wrong)
    return {"recordings": len(recordings()), "recordings_failed": failed}


def split_figures(every: int, failures: list[str]) -> dict[str, int]:
    """Streams in two pieces, split at every position or one of `every`, and byte by byte."""
    positions = failed = 0
    for recording in recordings():
        if recording.is_stream:
            wrong = split_failures(recording, every)
            positions += len(range(0, len(recording.body) + 1, every)) + 1
            failed += len(wrong)
            failures += wrong
    return {"split_positions": positions, "split_positions_failed": failed}


def split_failures(recording: Recording, every: int = 1) -> list[str]:
    """The splits of a stream that come to something else than the stream in one piece."""
    body, whole = recording.body, played(recording)
    splits = [[body[:at], body[at:]] for at in range(0, len(body) + 1, every)]
    splits.append([body[at : at + 1] for at in range(len(body))])
    return [
        f"{recording}: split after {len(split[0]) if split else 0} bytes"
        for split in splits
        if not play(recording, split).same_as(whole)
    ]


def generated_figures(count: int, failures: list[str]) -> dict[str, int]:
    """Answers drawn at random that come to something else as a stream than whole."""
    rng, failed = Random(SEED), 0
    for number in range(count):
        for wire in DEFAULT_PROVIDERS:
            wrong = generated_failure(wire, random_answer(rng), rng)
            failed += bool(wrong)
            failures += [f"seed {SEED}, answer {number}: {wrong}"] if wrong else []
    return {"generated": count * len(DEFAULT_PROVIDERS), "generated_failed": failed}


def generated_failure(wire: str, answer: Answer, rng: Random) -> str:
    """What is wrong with an answer of a wire; empty for nothing."""
    whole = recorded(wire, answer, is_stream=False)
    stream = recorded(wire, answer, is_stream=True)
    expected = read(whole, whole.body)
    if expected.result is None or not _says(expected, answer):
        return f"{wire}: the whole answer is read wrong"
    came = play(stream, split_at_random(stream.body, rng))
    if not came.same_as(expected) or not came.is_kept:
        return f"{wire}: the stream is read other than the whole answer"
    return next(iter(differences(stream, came)), "")


def _says(came: Played, answer: Answer) -> bool:
    assert came.result is not None
    message, usage = came.result.generate.message, came.result.usage
    calls = [(call.id, call.name) for call in message.tool_calls]
    return (
        message.content == answer.text
        and "".join(block.text for block in message.reasoning) == answer.reasoning
        and calls == [(id_, name) for id_, name, _ in answer.calls]
        and usage.input_tokens == answer.input_tokens
        and usage.output_tokens == answer.output_tokens
    )


def split_at_random(body: bytes, rng: Random) -> Sequence[bytes]:
    """The body in a few pieces, some of them perhaps empty."""
    places = sorted(rng.randrange(len(body) + 1) for _ in range(rng.randrange(MAX_PLACES)))
    ends = [0, *places, len(body)]
    return [body[a:b] for a, b in pairwise(ends)]
