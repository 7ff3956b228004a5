"""A decoder by itself: prompts are computed in steps, and threads share a model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from penstock.onnx.decoder import Decoder, Sampling
from penstock.onnx.encoder import RunCancelled
from penstock.onnx.genai import PROMPT_STEP_TOKENS
from penstock.onnx.session import BadInput
from tiny_decoder import CONTEXT_TOKENS, LETTERS, write_decoder

STEPS = 5


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    write_decoder(tmp_path / "letters" / "1")
    return Decoder.load(tmp_path / "letters" / "1")


def answer(decoder: Decoder, text: str) -> str:
    prompt = decoder.tokenizer.encode(text).ids
    return "".join(piece.text for piece in decoder.generate(prompt, Sampling()))


def cancelled_after(calls: int) -> Callable[[], bool]:
    """A check that says yes when it has been asked `calls` times."""
    asked = iter(range(calls))
    return lambda: next(asked, None) is None


@pytest.mark.parametrize("length", [1, PROMPT_STEP_TOKENS, PROMPT_STEP_TOKENS + 1, 1000])
def test_a_prompt_of_several_steps_is_continued_like_one_of_one(
    decoder: Decoder, length: int
) -> None:
    assert answer(decoder, "a" * length) == f"{LETTERS[1:]}ø"


def test_a_long_prompt_is_left_between_two_steps(decoder: Decoder) -> None:
    prompt = decoder.tokenizer.encode("a" * PROMPT_STEP_TOKENS * STEPS).ids
    with pytest.raises(RunCancelled):
        next(decoder.generate(prompt, Sampling(), cancelled_after(STEPS - 1)))


def test_threads_that_share_a_model_get_answers_of_their_own(decoder: Decoder) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda letter: answer(decoder, letter), LETTERS))
    assert answers == [f"{LETTERS[place + 1 :]}ø" for place in range(len(LETTERS))]


def test_logits_are_those_of_the_whole_text_however_it_is_computed(decoder: Decoder) -> None:
    tokens = decoder.tokenizer.encode("abcd").ids
    one_by_one = decoder.logits(tokens)
    assert one_by_one.shape == (4, decoder.tokenizer.get_vocab_size())
    assert (one_by_one[1:] == decoder.logits(tokens, at_once=2)).all()


def test_more_than_the_context_has_room_for_is_refused(decoder: Decoder) -> None:
    too_long = [0] * (CONTEXT_TOKENS + 1)
    with pytest.raises(BadInput):
        next(decoder.generate(too_long, Sampling(max_tokens=1)))
