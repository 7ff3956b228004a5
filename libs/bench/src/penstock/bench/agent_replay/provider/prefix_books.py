"""The provider's prefix cache and its price sheets, by tokens: what a call costs, and the books.

A prefix is read in steps of 128 tokens from 1,024 on, for five minutes after its last use, as
OpenAI documents it. The sheet with a price for writing is Anthropic's; its breakpoints are taken to
stand where they serve best, which is behind every step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

TOKEN_BYTES = 4
DIGEST_BYTES = 12


class Tokens(NamedTuple):
    """The tokens of one call, by what they cost; `cached` and `written` are part of `input`."""

    input: int
    cached: int
    written: int
    output: int


@dataclass(frozen=True)
class PriceSheet:
    """Micro-dollars a million tokens.

    Attributes:
        name: for people.
        input: of tokens that are neither read from the prefix cache nor written to it.
        cached: of those that are read.
        written: of those that are written.
        output: of the answer.
    """

    name: str
    input: int
    cached: int
    written: int
    output: int

    def microusd(self, tokens: Tokens) -> float:
        """What a call costs."""
        plain = tokens.input - tokens.cached - tokens.written
        return (
            plain * self.input
            + tokens.cached * self.cached
            + tokens.written * self.written
            + tokens.output * self.output
        ) / 1e6


WRITES_COST = PriceSheet("read 0.1, write 1.25", 3_000_000, 300_000, 3_750_000, 15_000_000)
"""Anthropic's, of a middle model; receipts are made by it."""
AUTOMATIC = PriceSheet("read 0.5, write 1.0", 2_500_000, 1_250_000, 2_500_000, 10_000_000)
"""OpenAI's, of a middle model."""


@dataclass
class PrefixCache:
    """The prefixes of one organisation at the provider. Not frozen: it is a cache.

    Attributes:
        min_tokens: a shorter prompt is neither read nor written.
        step_tokens: prefixes are kept and read in steps.
        ttl_s: seconds after its last use for which a prefix is kept.
    """

    min_tokens: int = 1_024
    step_tokens: int = 128
    ttl_s: float = 300.0
    _used_s: dict[bytes, float] = field(default_factory=dict)
    """By chained digest of a prefix: when it was last used."""

    def read_and_keep(self, prompt: bytes, now_s: float) -> tuple[int, int]:
        """The tokens of a prompt that were read, and those that were written.

        Args:
            prompt: its tokens, four bytes each.
            now_s: in the provider's own time.
        """
        if len(prompt) // TOKEN_BYTES < self.min_tokens:
            return 0, 0
        digests = self._digests(prompt)
        first = self.min_tokens // self.step_tokens
        steps = 0
        for steps_so_far, digest in enumerate(digests, start=1):
            if now_s - self._used_s.get(digest, float("-inf")) > self.ttl_s:
                break
            steps = steps_so_far
        self._used_s.update(dict.fromkeys(digests, now_s))
        read = steps * self.step_tokens if steps >= first else 0
        return read, len(digests) * self.step_tokens - read

    def _digests(self, prompt: bytes) -> list[bytes]:
        """The chained digest of each prefix of whole steps."""
        size = self.step_tokens * TOKEN_BYTES
        digests, digest = [], b""
        for start in range(0, len(prompt) - size + 1, size):
            block = prompt[start : start + size]
            digest = hashlib.blake2b(digest + block, digest_size=DIGEST_BYTES).digest()
            digests.append(digest)
        return digests
