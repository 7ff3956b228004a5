"""Whether an agent's tools come in changing order.

A provider's prefix cache reads a prompt whose tools always come in the same order, whichever that
is; to put these in another order would break the prefix of the conversations that are open. Where
the same tools came in another order before, every prompt has to be put in one. Digests are kept and
no text.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.prompts.conversation import ToolSpec

MAX_SETS = 4_096
"""Sets of tools remembered, of which the one that was used longest ago leaves."""
DIGEST_BYTES = 8


class _Order(NamedTuple):
    """How a set of tools came last, and whether it ever came otherwise."""

    sent: bytes
    varies: bool = False


@dataclass
class ToolOrders:
    """What is remembered of sets of tools. Not frozen: it learns. Safe to share among threads."""

    _sets: OrderedDict[tuple[str, bytes], _Order] = field(default_factory=OrderedDict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def vary(self, owner: str, in_order: Iterable[ToolSpec], sent: Iterable[ToolSpec]) -> bool:
        """Whether these tools came in another order before; how they came now is remembered.

        Args:
            owner: whose agent it is; what is learnt of one owner shows in nothing of another's.
            in_order: the tools as they would be put in order: equal for equal sets.
            sent: the same as they came.
        """
        tools, now = (owner, _digest(in_order)), _digest(sent)
        with self._one_at_a_time:
            known = self._sets.pop(tools, _Order(now))
            order = _Order(now, known.varies or known.sent != now)
            self._sets[tools] = order
            if len(self._sets) > MAX_SETS:
                self._sets.popitem(last=False)
        return order.varies


def _digest(tools: Iterable[ToolSpec]) -> bytes:
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for tool in tools:
        for text in (tool.name, tool.description, tool.parameters):
            raw = text.encode("utf-8", "surrogatepass")
            hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.digest()
