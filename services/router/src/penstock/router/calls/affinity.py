"""Where a session was served last, and which prefixes an instance is likely to hold.

Affinity is never a rule of its own: it makes a request smaller at some instances, and the score
does the rest. So it is left as soon as the expected extra wait exceeds the recompute that it saves.
Only conversations leave anything at an instance. Bounded memory, plain state, no clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.router.routing.fleet import Fleet, Member
from penstock.tasks.roles import ROLE_NAMES

PREFILL_SHARE = 0.5
"""Share of a conversation's work that a prefix cache saves when all of the prompt is there."""
SESSION_SHARE = 0.5
"""Share of the prompt that is taken to be where a session was served last, when nothing better is
known.
"""
BLOCK_BYTES = 2_048

Life = tuple[str, int]
"""An instance and how often it has been started again: what was at its earlier lives is lost."""
SessionKey = tuple[str, str]
"""Organisation and session, exact: `session-1` is not `session-12`."""


class Sessions:
    """The instance that served each session last; the longest unused is forgotten."""

    def __init__(self, max_sessions: int = 65_536) -> None:
        self._max_sessions = max_sessions
        self._instances: OrderedDict[SessionKey, Life] = OrderedDict()

    def instance_of(self, key: SessionKey) -> Life:
        """The instance of this session; an empty name for none."""
        return self._instances.get(key, ("", 0))

    def bind(self, key: SessionKey, instance: Life) -> None:
        """The session was sent there."""
        self._instances[key] = instance
        self._instances.move_to_end(key)
        if len(self._instances) > self._max_sessions:
            self._instances.popitem(last=False)


class PrefixIndex:
    """What each instance's prefix cache probably holds: the blocks sent there, least recently used
    first out.

    A block's identity must cover everything before it (a chained hash), so that the longest run
    from the start is what is reusable.
    """

    def __init__(self, blocks_per_instance: int = 8_192) -> None:
        self._max_blocks = blocks_per_instance
        self._blocks: dict[str, OrderedDict[Hashable, None]] = {}

    def matched(self, instance_id: str, blocks: Sequence[Hashable]) -> int:
        """Leading blocks that the instance probably holds."""
        known = self._blocks.get(instance_id)
        if not known:
            return 0
        for count, block in enumerate(blocks):
            if block not in known:
                return count
        return len(blocks)

    def sent(self, instance_id: str, blocks: Sequence[Hashable]) -> None:
        """These blocks were computed or used there."""
        known = self._blocks.setdefault(instance_id, OrderedDict())
        # From the last to the first: a prefix without its head is worth nothing, so the head must
        # be the freshest.
        for block in reversed(blocks):
            known[block] = None
            known.move_to_end(block)
        while len(known) > self._max_blocks:
            known.popitem(last=False)

    def forget(self, instance_id: str) -> None:
        """The instance holds nothing any more."""
        self._blocks.pop(instance_id, None)


class Affinity:
    """Sessions and prefixes of conversations, as sizes for the score."""

    def __init__(self) -> None:
        self._sessions = Sessions()
        self._prefixes = PrefixIndex()
        self._lives: dict[str, int] = {}

    def forget(self, instance_id: str) -> None:
        """The instance has gone, and its cache with it."""
        self._prefixes.forget(instance_id)
        self._lives.pop(instance_id, None)

    def sizes(
        self, key: SessionKey | None, blocks: Sequence[Hashable], fleet: Fleet
    ) -> Mapping[str, float] | None:
        """By instance, the work of a call in mean requests where a part of its prompt is there;
        None where nothing is.
        """
        bound = self._sessions.instance_of(key) if key is not None else None
        sizes = {}
        for member in fleet.members:
            if self._lives.get(member.id, 0) != member.lives:
                # Started again since, with an empty cache.
                self._prefixes.forget(member.id)
                self._lives[member.id] = member.lives
            share = self._prefixes.matched(member.id, blocks) / len(blocks) if blocks else 0.0
            if (member.id, member.lives) == bound:
                share = max(share, SESSION_SHARE)
            if share:
                sizes[member.id] = 1.0 - PREFILL_SHARE * share
        return sizes or None

    def sent(self, key: SessionKey | None, blocks: Sequence[Hashable], member: Member) -> None:
        """A call goes to an instance, and its prompt with it."""
        self._prefixes.sent(member.id, blocks)
        if key is not None:
            self._sessions.bind(key, (member.id, member.lives))


def prefix_blocks(model: str, task: inference_pb2.GenerateTask) -> tuple[Hashable, ...]:
    """Chained hashes of a prompt, one for each 2 KiB of it: each covers all before it."""
    text = model.encode() + b"\0"
    for tool in task.tools:
        text += tool.SerializeToString(deterministic=True)
    for message in task.messages:
        # Not as it is serialised: that begins with the length, and a longer message would share
        # nothing with a shorter one.
        text += b"\0".join(
            (
                ROLE_NAMES[message.role].encode(),
                message.content.encode(),
                message.tool_call_id.encode(),
            )
        )
        text += b"".join([part.SerializeToString(deterministic=True) for part in message.parts])
        text += b"".join(
            [call.SerializeToString(deterministic=True) for call in message.tool_calls]
        )
    digest, blocks = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(text), BLOCK_BYTES):
        digest.update(text[start : start + BLOCK_BYTES])
        blocks.append(digest.digest())
    return tuple(blocks)
