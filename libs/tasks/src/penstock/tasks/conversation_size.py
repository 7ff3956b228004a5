"""How many tokens a conversation has: turns, tools, schemas, reasoning, images and files.

Texts are counted by the model's own tokenizer where there is one, else by script. What stands in no
text is assumed: providers count an image by its size in pixels, which is not known here, and a file
by its pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.tasks.kind import BYTES_PER_TOKEN, OVERHEAD_TOKENS, Estimate, TokenCounter
from penstock.tasks.tokens import estimated_tokens, token_bound

TURN_TOKENS = 4
"""Tokens that a chat template puts around a turn or a tool, as a rule."""
FILE_BYTES_PER_TOKEN = 64
"""Bytes of a document for each of its tokens, as an estimate: a page of PDF has some 100 KB and
1,500 tokens.
"""


class AssumedTokens(NamedTuple):
    """Tokens of what is no text."""

    estimate: int
    bound: int


IMAGE = AssumedTokens(1_000, 2_048)
"""OpenAI's most is 1,445 tokens, Anthropic's about 1,600 (width times height through 750)."""
DISTANT_FILE = AssumedTokens(4_000, 32_000)
"""A document whose bytes are not at hand."""


def conversation_estimate(asked: pb.GenerateTask, count: TokenCounter | None) -> Estimate:
    """The estimate of a conversation that is to be continued."""
    pieces = len(asked.messages) + len(asked.tools)
    assumed = list(_assumed(asked))
    tokens = TURN_TOKENS * pieces + sum(one.estimate for one in assumed)
    bound = OVERHEAD_TOKENS * max(1, pieces) + sum(one.bound for one in assumed)
    for text in _texts(asked):
        if text:
            tokens += estimated_tokens(text) if count is None else count(text)
            bound += token_bound(text) if count is None else count(text)
    counted = count is not None and not assumed
    return Estimate(1, max(1, tokens), asked.max_tokens, bound, counted)


def _texts(asked: pb.GenerateTask) -> Iterator[str]:
    for message in asked.messages:
        yield message.content
        yield message.refusal
        yield message.extra_json
        for part in message.parts:
            yield part.text
        for call in message.tool_calls:
            yield call.name
            yield call.arguments_json
            yield call.extra_json
        for block in message.reasoning:
            yield block.text
    for tool in asked.tools:
        yield tool.name
        yield tool.description
        yield tool.parameters_json
    yield asked.response_format.schema_json
    yield asked.response_format.description


def _assumed(asked: pb.GenerateTask) -> Iterator[AssumedTokens]:
    for message in asked.messages:
        for part in message.parts:
            if part.HasField("image"):
                yield IMAGE
            elif part.HasField("file"):
                yield _file(part.file)
        for block in message.reasoning:
            if block.state:
                size = len(block.state)
                yield AssumedTokens(size // BYTES_PER_TOKEN, size)


def _file(file: pb.File) -> AssumedTokens:
    size = len(file.data)
    if not size:
        return DISTANT_FILE
    return AssumedTokens(size // FILE_BYTES_PER_TOKEN, size)
