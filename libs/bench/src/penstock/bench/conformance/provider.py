"""The scripted provider: both wires on one address, told apart by the path."""

from __future__ import annotations

from penstock.bench.conformance import anthropic_wire, openai_wire
from penstock.bench.conformance.script import refused_with, reply_to
from penstock.testkit import scripted_answers
from penstock.testkit.raw_upstream import RawAnswer, RawRequest, RawUpstream, whole

CHATS = (openai_wire.question_of, openai_wire.refusal, openai_wire.answer)
MESSAGES = (anthropic_wire.question_of, anthropic_wire.refusal, anthropic_wire.answer)


def scripted_provider() -> RawUpstream:
    """The provider, an async context manager."""
    return RawUpstream(_answer)


def _answer(request: RawRequest) -> RawAnswer:
    path, body = request.target.partition("?")[0], request.body
    if path.endswith("/embeddings"):
        return whole(scripted_answers.embeddings(body))
    if path.endswith("/rerank"):
        return whole(scripted_answers.ranking(body))
    if body is None:
        return openai_wire.models([])
    read, refusal, answer = MESSAGES if path.endswith("/messages") else CHATS
    question = read(body)
    status = refused_with(question)
    return refusal(status) if status else answer(body, reply_to(question))
