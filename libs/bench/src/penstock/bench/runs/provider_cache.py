"""A provider's prefix cache, as OpenAI documents it, by tokens: its own books, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.prompts.conversation import Conversation
from penstock.prompts.prefix import serialised
from penstock.prompts.prefix_cost import CacheTerms

BYTES_PER_TOKEN = 4
INPUT_MICROUSD_PER_MTOK, CACHED_MICROUSD_PER_MTOK = 3_000_000, 300_000


@dataclass(frozen=True)
class Bill:
    """What the provider reports of a prompt; `price` is in millionths of a micro-dollar."""

    input_tokens: int
    cached_tokens: int
    price: int


@dataclass
class ProviderCache:
    """The prompts that it keeps, with the time of their last use. Not frozen: it is a cache."""

    terms: CacheTerms = field(default_factory=CacheTerms)
    _kept: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)

    def answer(self, conversation: Conversation, settings: Mapping[str, str], now_s: float) -> Bill:
        """Read what it has of a prompt, and keep the prompt."""
        text = repr(sorted(settings.items())).encode() + b"\0" + serialised(conversation)
        tokens = len(text) // BYTES_PER_TOKEN
        cached = 0
        for kept, used_s in self._kept.values():
            if now_s - used_s <= self.terms.ttl_s:
                cached = max(cached, self._readable(kept, text))
        if tokens >= self.terms.min_tokens:
            self._kept[text] = (text, now_s)
        plain = (tokens - cached) * INPUT_MICROUSD_PER_MTOK
        return Bill(tokens, cached, plain + cached * CACHED_MICROUSD_PER_MTOK)

    def evict(self) -> None:
        """Keep nothing of what was kept."""
        self._kept.clear()

    def _readable(self, kept: bytes, text: bytes) -> int:
        shared = _shared(kept, text) // BYTES_PER_TOKEN
        if shared < self.terms.min_tokens:
            return 0
        return shared // self.terms.step_tokens * self.terms.step_tokens


def _shared(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
