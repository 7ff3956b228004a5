"""What became of a prefix, told from what the provider reports; the wrong one is never blamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.prefix_breaks import BreakKind, PrefixBreak
from penstock.prompts.prefix_cost import (
    CacheTerms,
    PrefixOutcome,
    PrefixRead,
    ReportedPrompt,
    explain_read,
)

TERMS = CacheTerms()
CLOCK = PrefixBreak(BreakKind.CLOCK, "turns[0]", "system", 2)
FIRST = ReportedPrompt(2_000, 0, 0, 100.0)


def prompt(
    cached: int, at_s: float = 110.0, tokens: int = 2_100, written: int = 0
) -> ReportedPrompt:
    return ReportedPrompt(tokens, cached, written, at_s)


@pytest.mark.parametrize(
    ("previous", "now", "broken", "outcome", "lost"),
    [
        (None, FIRST, None, PrefixOutcome.FIRST, 0),
        (prompt(0, tokens=1_023), prompt(0), CLOCK, PrefixOutcome.TOO_SHORT, 0),
        (FIRST, prompt(1_920), None, PrefixOutcome.READ, 0),
        (FIRST, prompt(1_920), CLOCK, PrefixOutcome.READ, 0),
        (FIRST, prompt(1_792), None, PrefixOutcome.READ, 128),
        (FIRST, prompt(1_791), None, PrefixOutcome.EVICTED, 129),
        (FIRST, prompt(0), CLOCK, PrefixOutcome.BROKEN, 1_920),
        (FIRST, prompt(1_024), CLOCK, PrefixOutcome.BROKEN, 896),
        (FIRST, prompt(0, at_s=401.0), CLOCK, PrefixOutcome.BROKEN, 1_920),
        (FIRST, prompt(0, at_s=401.0), None, PrefixOutcome.EXPIRED, 1_920),
        (FIRST, prompt(0, at_s=399.0), None, PrefixOutcome.EVICTED, 1_920),
        (prompt(900, written=600), prompt(0), None, PrefixOutcome.EVICTED, 1_500),
        (prompt(0, tokens=800, written=800), prompt(800), None, PrefixOutcome.READ, 0),
        (FIRST, prompt(0, tokens=1_024), None, PrefixOutcome.TOO_SHORT, 0),
        (FIRST, prompt(0, tokens=1_025), None, PrefixOutcome.EVICTED, 1_024),
        (prompt(0, tokens=2_048), prompt(1_920, tokens=2_048), None, PrefixOutcome.READ, 0),
        (FIRST._replace(server="b"), prompt(0), None, PrefixOutcome.MOVED, 1_920),
        (FIRST._replace(server="b"), prompt(1_920), None, PrefixOutcome.READ, 0),
        (FIRST._replace(server="b"), prompt(0), CLOCK, PrefixOutcome.BROKEN, 1_920),
        (FIRST._replace(estimated=True), prompt(0), CLOCK, PrefixOutcome.UNKNOWN, 0),
    ],
)
def test_the_outcome(
    previous: ReportedPrompt | None,
    now: ReportedPrompt,
    broken: PrefixBreak | None,
    outcome: PrefixOutcome,
    lost: int,
) -> None:
    read = explain_read(previous, now, broken, TERMS)
    assert (read.outcome, read.lost_tokens) == (outcome, lost)


PROMPTS = st.builds(
    ReportedPrompt,
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.floats(0, 1_000),
)


@given(PROMPTS, PROMPTS, st.sampled_from([None, CLOCK]))
def test_the_provider_is_never_blamed_for_a_break_nor_a_break_for_what_was_read(
    previous: ReportedPrompt, now: ReportedPrompt, broken: PrefixBreak | None
) -> None:
    read: PrefixRead = explain_read(previous, now, broken, TERMS)
    assert 0 <= read.lost_tokens <= read.readable_tokens
    if broken is not None:
        assert read.outcome not in (PrefixOutcome.EVICTED, PrefixOutcome.EXPIRED)
    if read.outcome is PrefixOutcome.BROKEN:
        assert broken is not None
        assert now.cached_tokens < read.readable_tokens
