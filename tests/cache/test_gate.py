"""The gate: which pairs of prompts contradict each other."""

from __future__ import annotations

import time

import pytest
from penstock.cache.semantic.gate import contradiction


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("new", "cached", "kind"),
    [
        ("transfer 50 dollars", "transfer 500 dollars", "number differs"),
        ("wake me at 7pm", "wake me at 8 pm", "number differs"),
        ("what is order A-1023", "what is order A-1024", "identifier differs"),
        ('delete the file "a.txt"', 'delete the file "b.txt"', "quoted text differs"),
        ("weather on monday", "weather on tuesday", "time differs"),
        ("how hot in celsius", "how hot in fahrenheit", "unit differs"),
        ("change from usd to eur", "change from eur to usd", "direction is reversed"),
        ("exchange usd to eur", "exchange eur to usd", "direction is reversed"),
        ("fly from oslo to rome", "fly from oslo to bern", "direction differs"),
        ("enable the alarm", "disable the alarm", "opposite word"),
        ("can i use my card abroad", "can i not use my card abroad", "negation differs"),
        ("was i charged", "was i never charged", "negation differs"),
        ("is Anna in the office", "is Boris in the office", "name differs"),
        ("how do i activate my card", "please tell me how to activate my card", ""),
        ("transfer 50 dollars", "make a transfer", ""),
        ("how much is left on my card", "the right card for me", ""),
        ("my card is not working at all in this shop", "card payment declined", ""),
        ("same text 5", "same text 5", ""),
    ],
)
def test_the_gate_fires_on_contradictions_only(new: str, cached: str, kind: str) -> None:
    assert contradiction(new, cached) == kind
    assert bool(contradiction(cached, new)) == bool(kind)


@pytest.mark.threat("a prompt that takes quadratic time")
@pytest.mark.parametrize("piece", ["a-", "aaaa", "1,", "/a", "a@", "'a ", "from a "])
def test_the_time_to_read_a_hostile_prompt_is_linear_in_its_length(piece: str) -> None:
    """Ten times the text takes about ten times the CPU time; a quadratic pattern would take a
    hundred times.
    """

    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        started = time.thread_time()
        contradiction(text, "b" + text)
        return time.thread_time() - started

    seconds(100)
    short = max(min(seconds(2_000 + number) for number in range(3)), 1e-3)
    assert min(seconds(20_000 + number) for number in range(3)) < 60 * short
