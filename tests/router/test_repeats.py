"""Short embedding tasks that come again are made and measured once."""

from __future__ import annotations

import pytest
from penstock.router.requests.requests import digest_of, measure
from penstock.router.requests.task_memo import KEPT, LONGEST, Repeats
from penstock.rpc.errors import Fault


def test_a_text_that_comes_again_gets_the_task_that_was_made() -> None:
    repeats = Repeats()
    first, again = (
        repeats.embed("mini", ["where is my card?"]),
        repeats.embed("mini", ["where is my card?"]),
    )
    assert first[0] is again[0] and first[1] is again[1]
    assert list(first[0].embed.texts) == ["where is my card?"]
    assert first[1] == measure("mini", first[0])
    assert (
        again.digest == digest_of(first.task) != repeats.embed("mini", ["where is my key?"]).digest
    )


def test_other_models_other_texts_and_several_texts_are_told_apart() -> None:
    repeats = Repeats()
    assert repeats.embed("mini", ["a b"])[1].model == "mini"
    assert repeats.embed("large", ["a b"])[1].model == "large"
    task, work, _ = repeats.embed("mini", ["a b", "c"])
    assert list(task.embed.texts) == ["a b", "c"] and work.rows == 2
    assert list(repeats.embed("mini", ["c"])[0].embed.texts) == ["c"]


def test_long_texts_and_more_than_are_kept_are_made_anew() -> None:
    repeats = Repeats()
    long = "x" * (LONGEST + 1)
    assert repeats.embed("mini", [long])[0] is not repeats.embed("mini", [long])[0]
    first = repeats.embed("mini", ["first"])[0]
    for number in range(KEPT):
        repeats.embed("mini", [f"text {number}"])
    assert repeats.embed("mini", ["first"])[0] is not first


@pytest.mark.parametrize(
    ("texts", "field"), [([], "texts"), ([" "], "texts[0]"), (["a", ""], "texts[1]")]
)
def test_what_cannot_be_is_refused_each_time(texts: list[str], field: str) -> None:
    repeats = Repeats()
    for _ in range(2):
        with pytest.raises(Fault) as refused:
            repeats.embed("mini", texts)
        assert refused.value.field == field
