"""How much of a prompt a provider can read from its prefix cache.

Estimated from the previous prompt of the same conversation. A provider's minimum length, time to
live and eviction are not known here; the usage that it reports has what was really read.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from penstock.prompts.conversation import Conversation, Decision

BLOCK_BYTES = 512
"""About 128 tokens, the step in which OpenAI's prompt cache grows. Prompts are compared block by
block; the last block of a prompt may be shorter.
"""
DIGEST_BYTES = 8
MAX_CONVERSATIONS = 4096
"""Conversations remembered; of a prompt of 100 KB, 1.6 KB are kept."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What a prompt shares with the conversation's previous prompt.

    Attributes:
        share: part of the prompt's bytes, 0 to 1, that the previous prompt began with.
        has_previous: whether a previous prompt is known.
    """

    share: float
    has_previous: bool

    def decision(self, tokens: int) -> Decision:
        """The shared prefix as a decision; `tokens` is the size of the prompt."""
        shared = round(self.share * tokens)
        if self.has_previous:
            reason = (
                f"{shared} of {tokens} tokens stood at the head of this conversation's previous "
                "prompt"
            )
        else:
            reason = "no earlier prompt of this conversation is known"
        return Decision("prompt", "prefix_share", False, reason, tokens, tokens - shared)


class PrefixHistory:
    """The previous prompt of each conversation, as digests of its blocks.

    Conversations are known by a key of the caller's choice; the least recently used are forgotten.
    """

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._max_conversations = max_conversations
        self._blocks: OrderedDict[Hashable, tuple[bytes, ...]] = OrderedDict()

    def record(self, key: Hashable, conversation: Conversation) -> SharedPrefix:
        """Remember a prompt that is about to be sent; compare it with the previous one."""
        text = serialised(conversation)
        blocks = tuple(
            hashlib.blake2b(text[start : start + BLOCK_BYTES], digest_size=DIGEST_BYTES).digest()
            for start in range(0, len(text), BLOCK_BYTES)
        )
        previous = self._blocks.pop(key, None)
        self._blocks[key] = blocks
        if len(self._blocks) > self._max_conversations:
            self._blocks.popitem(last=False)
        if previous is None or not blocks:
            return SharedPrefix(0.0, previous is not None)
        shared_bytes = _shared_blocks(previous, blocks) * BLOCK_BYTES
        return SharedPrefix(min(1.0, shared_bytes / len(text)), True)


def _shared_blocks(previous: Sequence[bytes], blocks: Sequence[bytes]) -> int:
    """Number of leading blocks that are equal."""
    for position, (before, now) in enumerate(zip(previous, blocks, strict=False)):
        if before != now:
            return position
    return min(len(previous), len(blocks))


def serialised(conversation: Conversation) -> bytes:
    """The prompt as bytes, in the order in which providers match prefixes.

    Different prompts give different bytes.
    """
    fields = [
        part
        for tool in conversation.tools
        for part in ("tool", tool.name, tool.description, tool.parameters)
    ]
    fields += [
        part for turn in conversation.turns for part in (turn.role, turn.tool_call_id, turn.content)
    ]
    return b"\0".join(field.encode("utf-8", "surrogatepass") for field in fields)
