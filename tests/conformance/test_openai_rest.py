"""OpenAI's own package: embeddings and models."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from running_gateway import EDGE, EMBEDDING_MODEL, EVERY_MODEL, KEY, LOCAL_ENCODER

encoders = pytest.mark.parametrize("model", [LOCAL_ENCODER, EMBEDDING_MODEL])


@pytest.fixture
def api() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{EDGE}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@encoders
def test_base64_and_numbers_are_the_same_vector(api: openai.OpenAI, model: str) -> None:
    as_base64 = api.embeddings.create(model=model, input="a text")
    as_floats = api.embeddings.create(model=model, input="a text", encoding_format="float")
    assert as_base64.data[0].embedding == pytest.approx(as_floats.data[0].embedding, abs=1e-6)
    assert as_base64.usage.total_tokens > 0


@encoders
def test_texts_keep_their_order(api: openai.OpenAI, model: str) -> None:
    texts = ["one", "two", "three"]
    made = api.embeddings.create(model=model, input=texts)
    assert [row.index for row in made.data] == [0, 1, 2]
    alone = [api.embeddings.create(model=model, input=text).data[0].embedding for text in texts]
    for row, vector in zip(made.data, alone, strict=True):
        assert row.embedding == pytest.approx(vector, abs=0.05)


def test_token_ids_are_refused_by_name(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(model=LOCAL_ENCODER, input=[[1, 2, 3]])
    assert caught.value.param == "input"


def test_an_empty_text_is_refused(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        api.embeddings.create(model=LOCAL_ENCODER, input=[])


def test_models_are_listed(api: openai.OpenAI) -> None:
    names = {model.id for model in api.models.list()}
    assert {*EVERY_MODEL, LOCAL_ENCODER} <= names


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_a_model_is_found(api: openai.OpenAI, model: str) -> None:
    assert api.models.retrieve(model).id == model


def test_an_unknown_model_is_not(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("nobody")
