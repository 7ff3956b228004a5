"""Free answers: clusters by a judge behind an OpenAI-compatible API, and what happens when it does
not answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.semantic.judge import MOST_CHARACTERS, OpenAiJudge
from penstock.cache.semantic.learning_log import Lessons
from penstock.cache.semantic.semantic_cache import Embedder, SemanticTier
from penstock.cache.settings import CacheSection, CacheSettings, JudgeSection
from penstock.cache.storage.entries import Entries
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream
from pydantic import ValidationError

ANN = Call(Principal("acme"))


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
    ("said", "verdict"),
    [("yes", True), ("No.", False), ("perhaps", None), ("", None), ("yes and no", None)],
)
async def test_only_a_plain_word_is_a_verdict(said: str, verdict: bool | None) -> None:
    async with ScriptedUpstream(lambda body: ScriptedAnswer(said)) as upstream:
        judge = judge_at(upstream.url)
        assert await judge.same("q", "a", "b") is verdict
        assert upstream.requests[0]["temperature"] == 0
        await judge.close()


@pytest.mark.parametrize(
    "fault", ["429", "500", "401", "reset", "malformed", "cut", "content_type"]
)
async def test_a_judge_that_fails_gives_no_verdict_and_says_nothing_of_the_texts(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream(lambda body: ScriptedAnswer("yes")) as upstream:
        upstream.faults.append(fault)
        judge = judge_at(upstream.url)
        assert await judge.same("private prompt", "a", "b") is None
        assert "private" not in caplog.text
        assert await judge.same("q", "x" * (MOST_CHARACTERS + 1), "b") is None
        assert len(upstream.requests) == 1
        await judge.close()


def test_a_bad_judge_section_names_its_field() -> None:
    with pytest.raises(ValidationError, match="url"):
        CacheSection.model_validate({"judge": {"url": "ftp://x", "model": "m"}})
    with pytest.raises(ValidationError, match="model"):
        CacheSection.model_validate({"judge": {"url": "http://x", "model": ""}})


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[CacheServicer]:
    knobs = CacheSection()
    async with embedded_store(tmp_path / "redis", "cache") as url:
        client = open_store(url)
        entries = Entries(client, b"secret", knobs)
        vector = np.ones(8, np.float32) / np.sqrt(8).astype(np.float32)
        embedder = Embedder("one@1", 8, lambda text: vector)
        tier = SemanticTier(
            Lessons(client, knobs.lessons_bytes), knobs, embedder, Random(1), SystemClock()
        )
        await tier.start()
        yield CacheServicer(
            CacheSettings(internal_token="secret"), knobs, entries, tier, SystemClock()
        )
        await tier.close()
        await client.aclose()


async def keep(cache: CacheServicer, text: str, answer: str) -> pb.StoreResponse:
    task = inference_pb2.Task()
    task.generate.messages.add(role="user", content=text)
    asked = pb.LookUpRequest(scope=pb.Scope(model="chat"), task=task, full_price_microusd=500)
    missed = await cache.LookUp(asked, ANN)
    result = inference_pb2.TaskResult()
    result.generate.message.content, result.generate.finish_reason = (
        answer,
        inference_pb2.FINISH_REASON_STOP,
    )
    stored = await cache.Store(pb.StoreRequest(token=missed.token, result=result), ANN)
    tier = cache.likeness.tier
    assert tier is not None
    for _ in range(100):  # the stream of lessons
        if sum(len(one.index) for one in tier.scopes()) >= keep.stored + (not stored.reason):  # type: ignore[attr-defined]
            break
        await asyncio.sleep(0.01)
    return stored


async def test_free_answers_fall_into_the_clusters_that_the_judge_sees(
    cache: CacheServicer,
) -> None:
    async with ScriptedUpstream(same_last_word) as upstream:
        cache.likeness.judge = judge_at(upstream.url)
        keep.stored = 0  # type: ignore[attr-defined]
        for number, (text, answer) in enumerate(
            [
                ("open when", "we open at nine"),
                ("hours please", "it is nine"),
                ("lost card", "please call"),
            ]
        ):
            assert (await keep(cache, text, answer)).reason == ""
            keep.stored = number + 1  # type: ignore[attr-defined]
        assert cache.likeness.tier is not None
        (held,) = cache.likeness.tier.scopes()
        assert [held.answers[place] for place in sorted(held.answers)] == [0, 0, 1]
        upstream.faults.append("500")
        assert (
            await keep(cache, "another", "we open at nine")
        ).reason == "semantic_off: the judge gave no verdict"
        assert len(held.index) == 3
        await cache.likeness.judge.close()
        assert all(
            "nine" in json.dumps(body) or "call" in json.dumps(body) for body in upstream.requests
        )
