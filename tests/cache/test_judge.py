"""The judge of free answers: its verdicts, its failures, and what the cache learns from them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from penstock.cache.build import Cache, Models
from penstock.cache.semantic.embedder import Embedder
from penstock.cache.semantic.openai_judge import MAX_CHARACTERS, OpenAiJudge
from penstock.cache.settings import CacheSection, JudgeSection
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream
from pydantic import ValidationError


def same_last_word(body: dict[str, Any]) -> ScriptedAnswer:
    """Yes where both answers end with the same word."""
    text = body["messages"][-1]["content"]
    one, other = (
        text.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0] for name in ("first", "second")
    )
    return ScriptedAnswer("Yes." if one.split()[-1] == other.split()[-1] else "no")


def judge_at(url: str) -> OpenAiJudge:
    return OpenAiJudge(JudgeSection(url=url, model="judge", timeout_ms=500))


@pytest.mark.parametrize(
    ("word", "verdict"),
    [("yes", True), ("No.", False), ("perhaps", None), ("", None), ("yes and no", None)],
)
async def test_only_a_plain_yes_or_no_is_a_verdict(word: str, verdict: bool | None) -> None:
    async with ScriptedUpstream(lambda body: ScriptedAnswer(word)) as upstream:
        judge = judge_at(upstream.url)
        assert await judge.are_equivalent("q", "a", "b") is verdict
        assert upstream.requests[0]["temperature"] == 0
        await judge.close()


@pytest.mark.parametrize(
    "fault", ["429", "500", "401", "reset", "malformed", "cut", "content_type"]
)
async def test_a_judge_that_fails_gives_no_verdict_and_texts_are_not_logged(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream(lambda body: ScriptedAnswer("yes")) as upstream:
        upstream.faults.append(fault)
        judge = judge_at(upstream.url)
        assert await judge.are_equivalent("private prompt", "a", "b") is None
        assert "private" not in caplog.text
        assert await judge.are_equivalent("q", "x" * (MAX_CHARACTERS + 1), "b") is None
        assert len(upstream.requests) == 1
        await judge.close()


def test_a_bad_judge_section_is_refused_with_the_name_of_its_field() -> None:
    with pytest.raises(ValidationError, match="url"):
        CacheSection.model_validate({"judge": {"url": "ftp://x", "model": "m"}})
    with pytest.raises(ValidationError, match="model"):
        CacheSection.model_validate({"judge": {"url": "http://x", "model": ""}})


async def add_free_answer(rig: Any, cache: Cache, prompt: str, answer: str) -> str:
    """Look up and answer a prompt; returns why nothing was learnt."""
    stored = await rig.add(cache, chat(prompt), chat_result(answer))
    assert stored.stored
    return str(stored.reason)


async def test_free_answers_that_the_judge_finds_equivalent_share_a_class(rig: Any) -> None:
    one_vector = np.full(8, 1 / np.sqrt(8), np.float32)
    embedder = Embedder("one@1", 8, lambda text: one_vector)
    async with ScriptedUpstream(same_last_word) as upstream:
        cache = await rig.open(Models(embedder, judge_at(upstream.url)))
        for number, (prompt, answer) in enumerate(
            [
                ("open when", "we open at nine"),
                ("hours please", "it is nine"),
                ("lost card", "please call"),
            ]
        ):
            assert await add_free_answer(rig, cache, prompt, answer) == ""
            await rig.until_learnt(cache, number + 1)
        (scope,) = cache.semantic_cache.loaded_scopes
        assert scope.answer_classes == [0, 0, 1]
        bodies = [json.dumps(body) for body in upstream.requests]
        assert all("nine" in body or "call" in body for body in bodies)


async def test_without_a_verdict_a_free_answer_is_stored_and_not_learnt(rig: Any) -> None:
    one_vector = np.full(8, 1 / np.sqrt(8), np.float32)
    embedder = Embedder("one@1", 8, lambda text: one_vector)
    async with ScriptedUpstream(same_last_word) as upstream:
        cache = await rig.open(Models(embedder, judge_at(upstream.url)))
        await add_free_answer(rig, cache, "open when", "we open at nine")
        await rig.until_learnt(cache, 1)
        upstream.faults.append("500")
        reason = await add_free_answer(rig, cache, "another", "we open at nine")
        assert reason == "semantic_off: the judge gave no verdict"
        assert rig.learnt_entries(cache) == 1
