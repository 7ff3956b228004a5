"""How much of a prompt a provider can read from its prefix cache: estimated from the prompt that
the same conversation sent before.

Deterministic, no clock. An estimate: no provider's shortest prefix, time to live or eviction is
known here; what was really read stands in the usage that the provider reports.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from penstock.prompts.conversation import Conversation, Decision

BLOCK_BYTES = 512
"""About 128 tokens: the step in which OpenAI's prompt caching grows. Only whole blocks count as
readable, and a prompt's own last rest.
"""
KEPT = 4096
"""Conversations that are remembered, the latest used; a block is 8 bytes, so a prompt of 100 KB
takes 1.6 KB.
"""


@dataclass(frozen=True, slots=True)
class Prefix:
    """`share`: part of the prompt's bytes, 0 to 1, that stood at the head of the conversation's
    previous prompt; `known`: there was one.
    """

    share: float
    known: bool

    def decision(self, tokens: int) -> Decision:
        """The line of the record; `tokens` is the prompt's size, and what is left after it is to be
        read in full.
        """
        read = round(self.share * tokens)
        reason = (
            f"{read} of {tokens} tokens stood at the head of this conversation's previous prompt"
            if self.known
            else "no earlier prompt of this conversation is known"
        )
        return Decision("prompt", "prefix_share", False, reason, tokens, tokens - read)


class Prefixes:
    """The blocks of the previous prompt of each conversation, by a key that the caller chooses;
    bounded.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._blocks: OrderedDict[Hashable, tuple[bytes, ...]] = OrderedDict()

    def sent(self, key: Hashable, conversation: Conversation) -> Prefix:
        """Compare a prompt that is about to be sent with the previous one, and remember it in its
        place.
        """
        text = serialised(conversation)
        blocks = tuple(
            hashlib.blake2b(text[start : start + BLOCK_BYTES], digest_size=8).digest()
            for start in range(0, len(text), BLOCK_BYTES)
        )
        previous = self._blocks.pop(key, None)
        self._blocks[key] = blocks
        if len(self._blocks) > self._kept:
            self._blocks.popitem(last=False)
        if previous is None or not blocks:
            return Prefix(0.0, previous is not None)
        same = next(
            (
                at
                for at, pair in enumerate(zip(previous, blocks, strict=False))
                if pair[0] != pair[1]
            ),
            None,
        )
        shared = min(len(previous), len(blocks)) if same is None else same
        return Prefix(min(1.0, shared * BLOCK_BYTES / len(text)), True)


def serialised(conversation: Conversation) -> bytes:
    """The prompt as bytes in the order in which providers match prefixes: tools, then turns; the
    same for equal prompts only.
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
