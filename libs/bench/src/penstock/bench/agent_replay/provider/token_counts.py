"""Prompts and answers as tokens, by the tokenizer of the chat model that comes with Penstock.

As in a chat template, no token reaches over the end of a message or of a tool.
"""

from __future__ import annotations

import functools
import json
from array import array
from pathlib import Path

from penstock.bench.agent_replay.provider.prefix_books import TOKEN_BYTES
from penstock.bench.agent_replay.traffic.recordings import Json, text_of
from tokenizers import Tokenizer

TEXTS_KEPT = 50_000
"""Texts whose tokens are remembered: a conversation brings its turns again with every call."""


class PromptTokens:
    """Turns bodies of chat completions into tokens."""

    def __init__(self, tokenizer_file: Path) -> None:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_truncation()
        tokenizer.no_padding()

        @functools.lru_cache(TEXTS_KEPT)
        def tokens(text: str) -> bytes:
            return array("I", tokenizer.encode(text, add_special_tokens=False).ids).tobytes()

        self._tokens = tokens

    def prompt(self, body: Json) -> bytes:
        """The tokens of a prompt, four bytes each, in the order in which prefixes are matched."""
        form = body.get("response_format")
        texts = [json.dumps(form, sort_keys=True)] if form else []
        texts += [_tool_text(tool["function"]) for tool in body.get("tools", ())]
        texts += [_message_text(message) for message in body["messages"]]
        return b"".join(map(self._tokens, texts))

    def count(self, message: Json) -> int:
        """The tokens of an answer."""
        return len(self._tokens(_message_text(message))) // TOKEN_BYTES


def _tool_text(function: Json) -> str:
    """A tool as its template writes it: the order of its properties is part of the prompt."""
    schema = json.dumps(function.get("parameters", {}), ensure_ascii=False)
    return f"{function['name']}\n{function.get('description', '')}\n{schema}\n"


def _message_text(message: Json) -> str:
    calls = [
        f"{call['id']} {call['function']['name']} {call['function']['arguments']}"
        for call in message.get("tool_calls") or []
    ]
    head = f"{message['role']} {message.get('tool_call_id', '')}"
    return "\n".join([head, text_of(message), *calls]) + "\n"
