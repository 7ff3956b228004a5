"""Where a session was served and which prefixes an instance is likely to hold. Bounded memory, plain state, no clock.

Affinity is never a rule of its own here: it makes a request smaller at some instances, and the score does the rest. So it is left as
soon as the expected extra wait exceeds the recompute that it saves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class Sessions:
    """The instance that served a session last, by exact key (`session-1` is not `session-12`); the longest unused is forgotten."""

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._bound: OrderedDict[Hashable, str] = OrderedDict()

    def instance_of(self, key: Hashable) -> str:
        """The instance bound to this key; empty for none."""
        return self._bound.get(key, "")

    def bind(self, key: Hashable, instance_id: str) -> None:
        """The session was sent there."""
        self._bound[key] = instance_id
        self._bound.move_to_end(key)
        if len(self._bound) > self._most:
            self._bound.popitem(last=False)


class PrefixIndex:
    """What each instance's prefix cache probably holds: the blocks sent there, least recently used first out.

    A block's identity must cover everything before it (a chained hash), so that the longest run from the start is what is reusable.
    """

    def __init__(self, blocks_an_instance: int = 8_192) -> None:
        self._most = blocks_an_instance
        self._held: dict[str, OrderedDict[Hashable, None]] = {}

    def matched(self, instance_id: str, blocks: Sequence[Hashable]) -> int:
        """Leading blocks that the instance probably holds."""
        held = self._held.get(instance_id)
        if not held:
            return 0
        for count, block in enumerate(blocks):
            if block not in held:
                return count
        return len(blocks)

    def sent(self, instance_id: str, blocks: Sequence[Hashable]) -> None:
        """These blocks were computed or used there."""
        held = self._held.setdefault(instance_id, OrderedDict())
        # From the last to the first: a prefix without its head is worth nothing, so the head must be the freshest.
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        while len(held) > self._most:
            held.popitem(last=False)

    def forget(self, instance_id: str) -> None:
        """The instance has gone, or was started again."""
        self._held.pop(instance_id, None)
