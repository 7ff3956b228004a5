"""How much of a prompt a provider can read from its prefix cache, and what broke it, from the
previous prompt of the same conversation.

It is an estimate: a provider's minimum length, time to live and eviction are not known here. What
was really read is in the usage that the provider reports; `prefix_cost.py` compares the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.prompts.conversation import Conversation, Decision
from penstock.prompts.prefix import serialised
from penstock.prompts.prefix_breaks import PrefixBreak, find_break
from penstock.prompts.prefix_cost import CacheTerms, PrefixRead, ReportedPrompt, explain_read
from penstock.prompts.prompt_digests import PromptDigests, digest, digests_of

BLOCK_BYTES = 512
"""About 128 tokens, the step in which OpenAI's prompt cache grows. Prompts are compared block by
block; the last block of a prompt may be shorter.
"""
MAX_CONVERSATIONS = 4096
"""Conversations remembered; of a prompt of 100 KB, some 5 KB are kept, at most 40 KB."""
NO_SETTINGS: Mapping[str, str] = {}
DEFAULT_TERMS = CacheTerms()


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What a prompt shares with the conversation's previous prompt.

    Attributes:
        share: part of the prompt's bytes, 0 to 1, that the previous prompt began with.
        has_previous: whether a previous prompt is known.
        broken: where the prompt departs from the previous one and how, without its texts; None
            where it only goes on.
        times: prompts in a row, this one among them, that broke at the same place in the same way.
    """

    share: float
    has_previous: bool
    broken: PrefixBreak | None = None
    times: int = 0

    def decision(self, tokens: int) -> Decision:
        """The shared prefix as a decision; `tokens` is the size of the prompt."""
        shared = round(self.share * tokens)
        if self.has_previous:
            reason = (
                f"{shared} of {tokens} tokens stood at the head of this conversation's previous "
                f"prompt{self._why()}"
            )
        else:
            reason = "no earlier prompt of this conversation is known"
        return Decision("prompt", "prefix_share", False, reason, tokens, tokens - shared)

    def _why(self) -> str:
        if self.broken is None:
            return ""
        why = f"; {self.broken}"
        if self.times > 1:
            why += f", as in the {self.times - 1} prompts before it"
        if self.broken.repair:
            why += f" ({self.broken.repair} of a rule of prompts may mend it)"
        return why


@dataclass(frozen=True, slots=True)
class _Known:
    """A prompt as it is remembered.

    Attributes:
        blocks: digests of its bytes, block by block.
        digests: its digests.
        broken: see `SharedPrefix`.
        times: see `SharedPrefix`.
        reported: what the provider said of the last prompt that was answered.
    """

    blocks: tuple[bytes, ...]
    digests: PromptDigests
    broken: PrefixBreak | None
    times: int
    reported: ReportedPrompt | None = None


class PrefixHistory:
    """The previous prompt of each conversation, as digests.

    Conversations are known by a key of the caller's choice; the least recently used are forgotten.
    """

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._max_conversations = max_conversations
        self._prompts: OrderedDict[Hashable, _Known] = OrderedDict()

    def record(
        self,
        key: Hashable,
        conversation: Conversation,
        settings: Mapping[str, str] = NO_SETTINGS,
        without_images: Sequence[bytes] = (),
    ) -> SharedPrefix:
        """Remember a prompt that is about to be sent; compare it with the previous one.

        Args:
            key: of the conversation.
            conversation: the prompt.
            settings: see `PromptDigests`.
            without_images: see `digests_of`.
        """
        text = serialised(conversation)
        blocks = tuple(
            digest(text[start : start + BLOCK_BYTES]) for start in range(0, len(text), BLOCK_BYTES)
        )
        previous = self._prompts.pop(key, None)
        known = previous.digests if previous else None
        now = digests_of(conversation, settings, without_images, known)
        shared = _compare(previous, blocks, now, len(text))
        reported = previous.reported if previous else None
        self._prompts[key] = _Known(blocks, now, shared.broken, shared.times, reported)
        if len(self._prompts) > self._max_conversations:
            self._prompts.popitem(last=False)
        return shared

    def answered(
        self,
        key: Hashable,
        shared: SharedPrefix,
        reported: ReportedPrompt,
        terms: CacheTerms = DEFAULT_TERMS,
        *,
        caches: bool = True,
    ) -> PrefixRead:
        """What became of a prompt's prefix, from what the provider reports of it.

        Args:
            key: of the conversation.
            shared: what `record` said of the prompt.
            reported: by the provider.
            terms: the provider's.
            caches: see `explain_read`.
        """
        known = self._prompts.get(key)
        if known is None:
            return explain_read(None, reported, shared.broken, terms, caches=caches)
        self._prompts[key] = replace(known, reported=reported)
        return explain_read(known.reported, reported, shared.broken, terms, caches=caches)


def _compare(
    previous: _Known | None, blocks: Sequence[bytes], now: PromptDigests, size: int
) -> SharedPrefix:
    if previous is None or not blocks:
        return SharedPrefix(0.0, previous is not None)
    broken = find_break(previous.digests, now)
    again = broken is not None and broken == previous.broken
    times = (previous.times + 1 if again else 1) if broken else 0
    if broken is not None and broken.place in now.settings:
        return SharedPrefix(0.0, True, broken, times)
    shared_bytes = _shared_blocks(previous.blocks, blocks) * BLOCK_BYTES
    return SharedPrefix(min(1.0, shared_bytes / size), True, broken, times)


def _shared_blocks(before: Sequence[bytes], now: Sequence[bytes]) -> int:
    for position, (old, new) in enumerate(zip(before, now, strict=False)):
        if old != new:
            return position
    return min(len(before), len(now))
