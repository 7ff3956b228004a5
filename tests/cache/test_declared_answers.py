"""The answers that a request's schema allows, and what their words tell of a vote."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.semantic.decision import Neighbour, SemanticDecision, SemanticPolicy
from penstock.cache.semantic.declared_answers import (
    EMBEDDED_AT_ONCE,
    MAX_ANSWERS,
    MAX_CHARACTERS,
    NO_MARGIN,
    DeclaredAnswers,
    declared_answers,
)
from penstock.testkit.chats import chat, chat_result

WIDTH = 4
PAY, LOST = {"enum": ["pay", "lost"]}, {"enum": ["card_lost"]}


def an_object(**properties: object) -> object:
    return {"type": "object", "properties": properties, "required": list(properties)}


DECLARED: dict[str, tuple[object, tuple[str, ...]]] = {
    "one list": (an_object(intent=PAY), ("pay", "lost")),
    "a list and a free text": (an_object(intent=PAY, why={"type": "string"}), ("pay", "lost")),
    "a list in an array": ({"type": "array", "items": PAY}, ("pay", "lost")),
    "a property named enum": (an_object(enum=PAY), ("pay", "lost")),
    "no list": (an_object(why={"type": "string"}), ()),
    "two lists": (an_object(intent=PAY, other=LOST), ()),
    "one value": (an_object(intent=LOST), ()),
    "the same value twice": ({"enum": ["pay", "pay"]}, ()),
    "numbers": ({"enum": [1, 2]}, ()),
    "no words": ({"enum": ["pay", "_"]}, ()),
    "a value that is no name": ({"enum": ["pay", "x" * (MAX_CHARACTERS + 1)]}, ()),
    "too many": ({"enum": [f"intent {number}" for number in range(MAX_ANSWERS + 1)]}, ()),
}


@pytest.mark.parametrize(("schema", "answers"), DECLARED.values(), ids=DECLARED)
def test_a_schema_with_one_list_of_names_declares_the_answers(
    schema: object, answers: tuple[str, ...]
) -> None:
    assert declared_answers(json.dumps(schema)) == answers


@pytest.mark.parametrize("schema", ["", "{", "[" * 20_000, "null", json.dumps(PAY) + " " * 40_000])
def test_what_is_no_schema_declares_nothing(schema: str) -> None:
    assert declared_answers(schema) == ()


DECLARING = DeclaredAnswers(("pay", "lost"), np.eye(2, WIDTH, dtype=np.float32))
MARGINS = {
    '["json",{"intent":"pay"}]': 0.2,
    '["json",{"intent":"lost"}]': -0.2,
    '["json","pay"]': 0.2,
    '["tool",[["route",{"to":"lost"}]]]': -0.2,
    '["json",{"intent":"help"}]': NO_MARGIN,
    '["json",{"intent":"pay","or":"lost"}]': NO_MARGIN,
    '["json",7]': NO_MARGIN,
    "text:key": NO_MARGIN,
    "": NO_MARGIN,
}


@pytest.mark.parametrize(("answer", "margin"), MARGINS.items())
def test_the_margin_of_an_answer_is_over_the_nearest_other_allowed_one(
    answer: str, margin: float
) -> None:
    prompt = np.array([0.8, 0.6, 0.0, 0.0], np.float32)
    assert DECLARING.margin(prompt, answer) == pytest.approx(margin)


def test_names_are_embedded_as_words() -> None:
    embedded_texts = []

    def embed(text: str) -> np.ndarray:
        embedded_texts.append(text)
        return np.ones(WIDTH, np.float32)

    DeclaredAnswers(("card_arrival", "lostCard", "top-up")).with_more_vectors(embed)
    assert embedded_texts == ["card arrival", "lost Card", "top up"]


def test_a_long_list_is_embedded_in_pieces_and_has_no_margins_before() -> None:
    values = tuple(f"intent {number}" for number in range(EMBEDDED_AT_ONCE + 1))
    vectors = np.random.default_rng(2).normal(size=(len(values), WIDTH))
    rest = iter(vectors.astype(np.float32))
    answer = json.dumps(["json", "intent 0"])
    some = DeclaredAnswers(values).with_more_vectors(lambda _: next(rest))
    assert not some.is_embedded
    assert some.margin(vectors[1], answer) == NO_MARGIN
    declared = some.with_more_vectors(lambda _: next(rest))
    assert declared.is_embedded
    assert declared.margin(vectors[1], answer) < 0


def test_a_vote_is_less_probable_where_another_allowed_answer_is_nearer() -> None:
    policy, rng = SemanticPolicy(WIDTH, 0.03), np.random.default_rng(4)
    vector = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
    policy.classes.grow(2)
    for _ in range(400):
        margin = float(rng.normal())
        is_right = margin + 0.5 * rng.normal() > 0
        vote = SemanticDecision(
            False, "", 0, features=tuple(rng.normal(size=15)), answer_margin=margin
        )
        policy.learn(rng.normal(size=WIDTH).astype(np.float32), "what", 0 if is_right else 1, vote)
    near = [Neighbour(0, 0, 0.9, "what"), Neighbour(1, 1, 0.7, "other")]

    def probability(margin: float) -> float:
        decided = policy.decide(vector, "what", near, Random(1), None, lambda _: margin)
        assert decided.answer_margin == margin
        return decided.probability

    assert probability(-1.0) < 0.5 * probability(1.0)


async def test_the_margin_of_a_vote_reaches_the_learning_log(rig: Any) -> None:
    cache = await rig.make()
    schema = json.dumps(an_object(intent={"enum": ["pay", "lost", "open"]}))
    kind = inference_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    form = inference_pb2.ResponseFormat(kind=kind, schema_json=schema)
    for number, text in enumerate(("pay now", "lost my card", "pay soon")):
        answer = chat_result(json.dumps({"intent": text.split()[0]}))
        await rig.add(cache, chat(text, response_format=form), answer)
        await rig.until_learnt(cache, number + 1)
    events = await cache.semantic_cache.learning_log.read_after("0", None)
    decisions = [logged.event.decision for logged in events]
    assert decisions[0] is None
    assert decisions[1].answer_margin < 0 < decisions[2].answer_margin
