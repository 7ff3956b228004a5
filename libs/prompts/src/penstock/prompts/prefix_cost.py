"""What a provider read from its prefix cache, against what it could have read, and why not more.

Providers report the tokens of a prompt, and how many of them they read from the cache and wrote to
it. The previous prompt of the same conversation says what could have been read: what was read and
written then, or, where a provider does not report what it writes, the whole prompt in its steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from penstock.prompts.prefix_breaks import PrefixBreak


class PrefixOutcome(Enum):
    """What became of a prefix; the value says it in words."""

    FIRST = "the conversation's first prompt"
    TOO_SHORT = "the prompt is, or the one before it was, too short for the provider's cache"
    READ = "read as far as it could be"
    BROKEN = "the prompt broke it"
    MOVED = "another instance served it than the prompt before it"
    EXPIRED = "it was kept no longer"
    EVICTED = "the provider did not keep it"
    UNKNOWN = "nothing that the provider reports shows that it keeps prefixes"


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """How a provider caches prefixes. The defaults are OpenAI's, which most others are close to.

    Attributes:
        min_tokens: shorter prompts are not cached.
        step_tokens: prefixes are cached in such steps.
        ttl_s: seconds that a prefix is kept after its last use.
    """

    min_tokens: int = 1024
    step_tokens: int = 128
    ttl_s: float = 300.0


class ReportedPrompt(NamedTuple):
    """A prompt that was answered, and what the provider reported of it.

    Attributes:
        input_tokens: of the whole prompt.
        cached_tokens: of these, read from the cache.
        written_tokens: of these, written to it; 0 where the provider does not say.
        at_s: when it was sent, by a clock that only goes forward.
        server: who served it; each has a cache of its own. Empty where that is not known.
        id: the caller's name for it.
        estimated: the provider has reported nothing, and the tokens are estimates.
    """

    input_tokens: int
    cached_tokens: int
    written_tokens: int
    at_s: float
    server: str = ""
    id: str = ""
    estimated: bool = False

    def readable_tokens(self, terms: CacheTerms) -> int:
        """Tokens of its prefix that the next prompt can read."""
        if self.written_tokens:
            return self.cached_tokens + self.written_tokens
        return _in_steps(self.input_tokens, terms)


def _in_steps(tokens: int, terms: CacheTerms) -> int:
    """The tokens of a prompt that a cache can hold."""
    return tokens // terms.step_tokens * terms.step_tokens if tokens >= terms.min_tokens else 0


def _readable(previous: ReportedPrompt, now: ReportedPrompt, terms: CacheTerms) -> int:
    """Tokens that a prompt can read of what the previous one left; its own last token is always
    computed.
    """
    most = now.input_tokens - 1
    if not previous.written_tokens:
        most = _in_steps(most, terms)
    return max(0, min(previous.readable_tokens(terms), most))


class PrefixRead(NamedTuple):
    """What became of a prompt's prefix.

    Attributes:
        outcome: what, and why.
        readable_tokens: what could have been read, had the prompt gone on from the previous one.
        lost_tokens: of these, what was not read.
    """

    outcome: PrefixOutcome
    readable_tokens: int
    lost_tokens: int


def explain_read(
    previous: ReportedPrompt | None,
    now: ReportedPrompt,
    broken: PrefixBreak | None,
    terms: CacheTerms,
    *,
    caches: bool = True,
) -> PrefixRead:
    """What became of the prefix of a prompt that was answered.

    Args:
        previous: the conversation's previous prompt; None where this is the first that is known.
        now: this prompt.
        broken: where it departs from the previous one; see `prefix_breaks.find_break`.
        terms: the provider's.
        caches: whether the provider has ever reported tokens that it read from its cache or wrote
            to it; without that it is blamed for nothing.
    """
    if previous is None:
        return PrefixRead(PrefixOutcome.FIRST, 0, 0)
    if previous.estimated or now.estimated:
        return PrefixRead(PrefixOutcome.UNKNOWN, 0, 0)
    readable = _readable(previous, now, terms)
    if not readable:
        return PrefixRead(PrefixOutcome.TOO_SHORT, 0, 0)
    lost = max(0, readable - now.cached_tokens)
    if lost <= terms.step_tokens:
        # The end of a prompt, such as the marks that ask for an answer, is not in the next one, and
        # may have filled a step.
        return PrefixRead(PrefixOutcome.READ, readable, lost)
    why = _why(previous, now, broken, terms)
    if not caches and why is not PrefixOutcome.BROKEN:
        why = PrefixOutcome.UNKNOWN
    return PrefixRead(why, readable, lost)


def _why(
    previous: ReportedPrompt,
    now: ReportedPrompt,
    broken: PrefixBreak | None,
    terms: CacheTerms,
) -> PrefixOutcome:
    """A break explains a loss whatever else happened: the prefix could not have been read."""
    if broken is not None:
        return PrefixOutcome.BROKEN
    if previous.server != now.server:
        return PrefixOutcome.MOVED
    if now.at_s - previous.at_s > terms.ttl_s:
        return PrefixOutcome.EXPIRED
    return PrefixOutcome.EVICTED
