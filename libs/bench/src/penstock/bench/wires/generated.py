"""Answers drawn at random, and how each wire says them, whole and as a stream.

Written apart from the code that reads them, so that both can be held against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

from penstock.testkit.recordings import DEFAULT_PROVIDERS, Recording

ALPHABET = 'abc XYZ,.\n\t"\\/{}[]:é東🚀\u2028\u00a0'
"""Characters that JSON, event streams and UTF-8 treat each in their own way."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model says."""

    text: str = ""
    reasoning: str = ""
    signature: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    """Id, name and arguments of each tool call."""
    input_tokens: int = 9
    output_tokens: int = 5
    pieces: Random = field(default_factory=Random, compare=False)
    """Chance that decides where the answer is cut into events."""


def random_text(rng: Random, longest: int = 40) -> str:
    """A text, perhaps empty."""
    return "".join(rng.choices(ALPHABET, k=rng.randrange(longest)))


def random_answer(rng: Random) -> Answer:
    """An answer with text, tool calls of a tool that changes nothing, or both."""
    calls = tuple(
        (f"id_{number}", "read", json.dumps({"q": random_text(rng), "n": rng.randrange(99)}))
        for number in range(rng.choice((0, 0, 1, 2, 3)))
    )
    text = random_text(rng)
    return Answer(
        text=text if calls else f"{text}x",
        reasoning=random_text(rng) if rng.random() < 0.4 else "",
        signature="c2lnbmF0dXJl" if rng.random() < 0.5 else "",
        calls=calls,
        input_tokens=rng.randrange(1, 5000),
        output_tokens=rng.randrange(1, 5000),
        pieces=rng,
    )


def cut(text: str, rng: Random) -> list[str]:
    """The text in pieces, none of them empty."""
    places = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(4)))
    ends = [0, *places, len(text)]
    return [text[a:b] for a, b in pairwise(ends) if a < b]


def recorded(wire: str, answer: Answer, *, is_stream: bool) -> Recording:
    """An answer as a recording of a wire."""
    make = STREAMS[wire] if is_stream else WHOLES[wire]
    body = make(answer)
    return Recording("generated", wire, "", DEFAULT_PROVIDERS[wire], is_stream, {}, body)


def _dumped(value: Json, rng: Random) -> str:
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def _openai_usage(answer: Answer) -> Json:
    total = answer.input_tokens + answer.output_tokens
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": total,
    }


def _openai_whole(answer: Answer) -> bytes:
    message: Json = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in answer.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": _openai_finish(answer)}
    body = {"model": "gpt-x", "choices": [choice], "usage": _openai_usage(answer)}
    return _dumped(body, answer.pieces).encode()


def _openai_finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _openai_stream(answer: Answer) -> bytes:
    rng = answer.pieces
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in cut(answer.reasoning, rng)]
    deltas += [{"content": piece} for piece in cut(answer.text, rng)]
    for index, (id_, name, arguments) in enumerate(answer.calls):
        head = {"name": name, "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": id_, "function": head}]})
        for piece in cut(arguments, rng):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    choices: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": _openai_finish(answer)})
    values: list[Json] = [{"model": "gpt-x", "choices": [choice]} for choice in choices]
    values.append({"model": "gpt-x", "choices": [], "usage": _openai_usage(answer)})
    events = [f"data: {_dumped(value, rng)}\n\n" for value in values]
    return ("".join(events) + "data: [DONE]\n\n").encode()


def _anthropic_blocks(answer: Answer) -> list[tuple[Json, list[Json], Json]]:
    """Each block as it begins, its deltas, and as it is in the end."""
    rng = answer.pieces
    blocks: list[tuple[Json, list[Json], Json]] = []
    if answer.reasoning or answer.signature:
        deltas: list[Json] = [
            {"type": "thinking_delta", "thinking": piece} for piece in cut(answer.reasoning, rng)
        ]
        if answer.signature:
            deltas.append({"type": "signature_delta", "signature": answer.signature})
        started: Json = {"type": "thinking", "thinking": "", "signature": ""}
        end = {**started, "thinking": answer.reasoning, "signature": answer.signature}
        blocks.append((started, deltas, end))
    if answer.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in cut(answer.text, rng)]
        blocks.append(({"type": "text", "text": ""}, deltas, {"type": "text", "text": answer.text}))
    for id_, name, arguments in answer.calls:
        begun: Json = {"type": "tool_use", "id": id_, "name": name, "input": {}}
        told = json.dumps(json.loads(arguments), ensure_ascii=False, separators=(",", ":"))
        deltas = [
            {"type": "input_json_delta", "partial_json": piece} for piece in ["", *cut(told, rng)]
        ]
        blocks.append((begun, deltas, {**begun, "input": json.loads(arguments)}))
    return blocks


def _anthropic_stop(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"


def _anthropic_whole(answer: Answer) -> bytes:
    body = {
        "id": "msg_1",
        "type": "message",
        "model": "claude-x",
        "content": [end for _, _, end in _anthropic_blocks(answer)],
        "stop_reason": _anthropic_stop(answer),
        "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
    }
    return _dumped(body, answer.pieces).encode()


def _anthropic_stream(answer: Answer) -> bytes:
    usage = {"input_tokens": answer.input_tokens, "output_tokens": 1}
    message = {"id": "msg_1", "model": "claude-x", "content": [], "usage": usage}
    values: list[Json] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (begun, deltas, _) in enumerate(_anthropic_blocks(answer)):
        values.append({"type": "content_block_start", "index": index, "content_block": begun})
        values += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        values.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": _anthropic_stop(answer), "stop_sequence": None}
    values.append(
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.output_tokens}}
    )
    values.append({"type": "message_stop"})
    events = (
        f"event: {value['type']}\ndata: {_dumped(value, answer.pieces)}\n\n" for value in values
    )
    return "".join(events).encode()


WHOLES = {"openai-chat": _openai_whole, "anthropic-messages": _anthropic_whole}
STREAMS = {"openai-chat": _openai_stream, "anthropic-messages": _anthropic_stream}
