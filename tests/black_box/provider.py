"""A scripted OpenAI-compatible provider behind the system under test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream, UpstreamFault

from .configuration import PROVIDER_KEY


@dataclass
class Provider:
    """The provider. It repeats the last turn where no other answer was set for it."""

    _answers: dict[str, ScriptedAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._server = ScriptedUpstream(self._answer_to, key=PROVIDER_KEY)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a free port; gives the base URL."""
        async with self._server:
            yield self._server.url

    def _answer_to(self, body: dict[str, Any]) -> ScriptedAnswer:
        prompt = str(body["messages"][-1]["content"])
        return self._answers.get(prompt) or ScriptedAnswer(prompt)

    def answer(self, prompt: str, text: str, **fields: Any) -> None:
        """Set the answer to a prompt. `fields`: cached_tokens, reasoning_tokens, finish_reason, and
        tool_calls as pairs of name and arguments."""
        self._answers[prompt] = ScriptedAnswer(text, **fields)

    def fail_next(self, fault: UpstreamFault) -> None:
        """Answer the next request with this fault."""
        self._server.faults.append(fault)

    @contextlib.contextmanager
    def slow(self, first_s: float, word_s: float = 0.0) -> Iterator[None]:
        """Wait before the first word and between words."""
        self._server.first_token_s, self._server.per_word_s = first_s, word_s
        try:
            yield
        finally:
            self._server.first_token_s = self._server.per_word_s = 0.0

    def asked(self, prompt: str) -> list[dict[str, Any]]:
        """The bodies of requests whose last turn was this."""
        conversations = [body for body in self._server.requests if body.get("messages")]
        return [body for body in conversations if body["messages"][-1]["content"] == prompt]

    @property
    def caller_left(self) -> asyncio.Event:
        """Set when a caller has closed its connection before its answer ended."""
        return self._server.caller_left
