"""Providers that keep books of their own: tokens as they count them, at their prices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.scripted_answers import Json
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream

CHAT, VECTORS, HEDGED, UNSURE, SURE = "chat", "vectors", "hedged", "judge-small", "judge-large"
"""Models; of `vectors` there is one provider, of `hedged` and `chat` two."""
SILENT = "silent"
"""The step whose calls get no answer."""
PRICES: Mapping[str, Mapping[str, int]] = {
    CHAT: {"input": 150_000, "output": 600_000, "cached_input": 75_000},
    VECTORS: {"input": 20_000},
    HEDGED: {"input": 130_000},
    UNSURE: {"input": 10_000},
    SURE: {"input": 1_100_000},
}
"""Micro-dollars a million tokens."""
Place = tuple[str, str]
"""A run and a step."""


@dataclass
class Books:
    """What providers bill, in pico-dollars by run and step. Not frozen: it counts."""

    billed: Counter[Place] = field(default_factory=Counter)

    def add(self, text: str, model: str, **tokens: int) -> None:
        """Bill the tokens of a call; its text begins with the run and the step."""
        run_id, step, *_ = text.split(" ")
        prices = PRICES[model]
        self.billed[run_id, step] += sum(n * prices[kind] for kind, n in tokens.items())

    def read(self, upstream: ScriptedUpstream) -> None:
        """Bill what an upstream has computed, and what it was asked and never answered."""
        for body, usage in upstream.billed:
            if "input" in body:
                self._add_texts(body, upstream)
            else:
                self._add_chat(body, usage)
        for body in upstream.requests:
            if f" {SILENT} " in str(body.get("input", "")):
                self._add_texts(body, upstream)

    def _add_texts(self, body: Json, upstream: ScriptedUpstream) -> None:
        for text in body["input"]:
            self.add(text, body["model"], input=upstream.count(text))

    def _add_chat(self, body: Json, usage: Json) -> None:
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.add(
            body["messages"][-1]["content"],
            CHAT,
            input=usage["prompt_tokens"] - cached,
            cached_input=cached,
            output=usage["completion_tokens"],
        )


class Judge(EmptyInstance):
    """Chooses a label, always so sure, and bills each word twice."""

    def __init__(self, model: str, confidence: float, books: Books) -> None:
        self._model, self._confidence, self._books = model, confidence, books

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        """See InferenceService."""
        result = inference_pb2.TaskResult(revision="1", compute_ms=1.0)
        for text in request.task.classify.texts:
            tokens = 2 * len(text.split())
            self._books.add(text, self._model, input=tokens)
            result.usage.input_tokens += tokens
            labels = result.classify.classifications.add().labels
            labels.add(label="refund", score=self._confidence)
        return inference_pb2.ComputeResponse(result=result)


def scripted_answer(body: Json) -> ScriptedAnswer:
    """An answer of 1 to 40 words, for which some of the prompt may be read from a cache."""
    chosen = random.Random(str(body["messages"]))
    words = " ".join(["word"] * chosen.randint(1, 40))
    return ScriptedAnswer(words, chosen.choice((0, 0, 5)), chosen.choice((0, 3)))
