"""What a scripted upstream answers, and how fast: messages of OpenAI's chat and embedding protocol,
and the pace of each answer.

Pure: a request's body in, an answer's body out. Token counts are estimates of four characters each.
The pace comes from a recorded trace or is drawn from distributions, deterministic in both cases.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

EMBEDDING_WIDTH = 8
PROMPT_OVERHEAD_TOKENS = 3
CHARACTERS_PER_TOKEN = 4

Json = dict[str, Any]


@dataclass(frozen=True)
class ScriptedAnswer:
    """An answer: its text, the tokens that it reports, its tool calls and its finish reason.

    `tool_calls` are pairs of a function's name and its arguments as JSON.
    """

    text: str
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str = "stop"


def completion(request: Json, answer: ScriptedAnswer, *, report_usage: bool) -> Json:
    """The body of a chat completion that is not streamed."""
    message: Json = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call-{index}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for index, (name, arguments) in enumerate(answer.tool_calls)
        ]
    body = {
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
    }
    return {**body, "usage": usage(request, answer)} if report_usage else body


def chunk(request: Json, delta: Json, finish_reason: str | None = None) -> Json:
    """One chunk of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"model": request["model"], "choices": [choice]}


def tool_call_chunk(request: Json, index: int, name: str, arguments: str) -> Json:
    """The chunk of a streamed completion with one whole tool call."""
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "id": f"call-{index}", "function": function}
    return chunk(request, {"tool_calls": [call]})


def usage_chunk(request: Json, answer: ScriptedAnswer) -> Json:
    """The last chunk of a streamed completion, with its usage alone."""
    return {"model": request["model"], "choices": [], "usage": usage(request, answer)}


def usage(request: Json, answer: ScriptedAnswer) -> Json:
    """The token counts of a chat completion."""
    characters = sum(len(str(message.get("content") or "")) for message in request["messages"])
    prompt_tokens = characters // CHARACTERS_PER_TOKEN + PROMPT_OVERHEAD_TOKENS
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(answer.text.split(" ")) + answer.reasoning_tokens,
        "prompt_tokens_details": {"cached_tokens": min(answer.cached_tokens, prompt_tokens)},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
    }


def estimated_tokens(text: str) -> int:
    """Tokens of a text at four characters each."""
    return len(text) // CHARACTERS_PER_TOKEN


def embeddings(request: Json, count: Callable[[str], int] = estimated_tokens) -> Json:
    """The body of an embedding answer: a hash of each text, the rows in reverse order.

    Args:
        count: tokens of a text.
    """
    rows = [
        {"index": index, "embedding": _embedding(text)}
        for index, text in enumerate(request["input"])
    ]
    return {
        "model": request["model"],
        "data": rows[::-1],
        "usage": {"prompt_tokens": sum(map(count, request["input"]))},
    }


def ranking(request: Json) -> Json:
    """The body of a reranking answer: documents by their length, the longest first."""
    documents = request["documents"]
    order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))
    rows = [{"index": i, "relevance_score": len(documents[i]) / 100} for i in order]
    tokens = sum(len(request["query"]) + len(document) for document in documents)
    return {
        "model": request["model"],
        "results": rows[: request["top_n"]],
        "usage": {"total_tokens": tokens // CHARACTERS_PER_TOKEN},
    }


def _embedding(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_WIDTH]]


@dataclass(frozen=True, slots=True)
class Pace:
    """The timing of one answer.

    Attributes:
        first_token_s: seconds to the first piece.
        per_word_s: seconds between two words.
        words: length of the answer; 0 leaves the length that the script gives.
    """

    first_token_s: float = 0.0
    per_word_s: float = 0.0
    words: int = 0


Paces = Callable[[int], Pace]
"""The pace of a request by its number, counted from 0."""


def trace_paces(trace: Sequence[Pace]) -> Paces:
    """The rows of a trace in order, repeated from the beginning."""
    return lambda number: trace[number % len(trace)]


def log_normal_paces(seed: int, median: Pace, spread: float = 0.5) -> Paces:
    """Times to the first piece and lengths that are log-normal about their medians.

    Measured ones are. `spread` is the standard deviation of the logarithm.
    """

    def pace(number: int) -> Pace:
        rng = Random(f"{seed}:{number}")
        time_factor = math.exp(rng.gauss(0.0, spread))
        length_factor = math.exp(rng.gauss(0.0, spread))
        words = max(1, round(median.words * length_factor)) if median.words else 0
        return Pace(median.first_token_s * time_factor, median.per_word_s, words)

    return pace


def repeat_to_length(text: str, words: int) -> str:
    """The text cut or repeated to so many words; unchanged where `words` is 0."""
    if not words:
        return text
    known = text.split(" ")
    return " ".join(known[number % len(known)] for number in range(words))
