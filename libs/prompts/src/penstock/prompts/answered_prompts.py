"""The last answered prompts of conversations, found again by what a new prompt shares with them.

A session, which the caller names, may hold several conversations: each is known by its first user
turn. A conversation may go on in several ways at once, so that a few of its prompts are remembered.
One whose oldest turns were left out begins otherwise than before: it is known by the turns that it
kept. Memory is bounded by number and by bytes; what was used longest ago leaves first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from penstock.prompts.prefix_breaks import PrefixBreak
from penstock.prompts.prefix_cost import ReportedPrompt
from penstock.prompts.prompt_digests import Digest, PromptDigests

MAX_CONVERSATIONS = 4096
MAX_BYTES = 64 << 20
"""About what all of them take in memory."""
MAX_PROMPT_BYTES = 1 << 20
"""A prompt whose digests take more, one of some 3,000 turns, is not remembered."""
MAX_BRANCHES = 4
"""Prompts of one conversation."""
MAX_BEGINNINGS = 8
"""Latest conversations of a session among which one that begins otherwise is looked for."""
MIN_KEPT_TURNS = 2
"""Turns, but for the system's and the last, by which a conversation is known that begins
otherwise.
"""


class Place(NamedTuple):
    """A conversation of a session with a model."""

    session: Hashable
    model: str
    began: Digest


class AnsweredPrompt(NamedTuple):
    """A prompt as it is remembered.

    Attributes:
        digests: its digests.
        reported: what the provider reported of it.
        broken: where it departed from the one before it.
        times: prompts in a row, it among them, that broke at the same place in the same way.
        since: the first of them; None where nothing broke.
        size_bytes: about what it takes in memory.
    """

    digests: PromptDigests
    reported: ReportedPrompt
    broken: PrefixBreak | None
    times: int
    since: ReportedPrompt | None
    size_bytes: int


class AnsweredPrompts:
    """The memory; see the head of this module."""

    def __init__(self, max_conversations: int, max_bytes: int) -> None:
        self._max_conversations, self._max_bytes = max_conversations, max_bytes
        self._bytes = 0
        self._prompts: OrderedDict[Place, tuple[AnsweredPrompt, ...]] = OrderedDict()
        """The latest prompt of a conversation last."""
        self._places: OrderedDict[Hashable, tuple[Place, ...]] = OrderedDict()
        """The latest conversations of a session, the latest last."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return self._bytes

    def latest(self, place: Place) -> AnsweredPrompt | None:
        """The latest prompt of a conversation, else of its session."""
        for known in (place, *reversed(self._places.get(place.session, ()))):
            if prompts := self._prompts.get(known):
                return prompts[-1]
        return None

    def before(self, place: Place, now: PromptDigests) -> AnsweredPrompt | None:
        """The prompt of the same conversation that a new one is compared with: the one that shares
        most turns with it; None where none is known.
        """
        prompts = self._prompts.get(place)
        if prompts:
            return _most_shared(prompts, now)
        others = [one for one in reversed(self._places.get(place.session, ())) if one != place]
        for other in others:
            if other.began == place.began and other in self._prompts:
                return _most_shared(self._prompts[other], now)
        kept = {turn.exact for turn in now.turns[:-1] if turn.role != "system"}
        for other in sorted(others, key=lambda one: one.model != place.model):
            for prompt in reversed(self._prompts.get(other, ())):
                known = {turn.exact for turn in prompt.digests.turns}
                if len(known & kept) >= MIN_KEPT_TURNS:
                    return prompt
        return None

    def put(self, place: Place, prompt: AnsweredPrompt, replaced: AnsweredPrompt | None) -> None:
        """Remember a prompt, in place of another one or beside it."""
        if prompt.size_bytes > MAX_PROMPT_BYTES:
            return
        prompts = [one for one in self._forget(place) if one is not replaced]
        prompts = [*prompts, prompt][-MAX_BRANCHES:]
        self._prompts[place] = tuple(prompts)
        self._bytes += _size_bytes(prompts)
        places = [one for one in self._places.pop(place.session, ()) if one != place]
        self._places[place.session] = tuple([*places, place][-MAX_BEGINNINGS:])
        while len(self._prompts) > self._max_conversations or self._bytes > self._max_bytes:
            self._forget(next(iter(self._prompts)))
        if len(self._places) > self._max_conversations:
            self._places.popitem(last=False)

    def _forget(self, place: Place) -> tuple[AnsweredPrompt, ...]:
        forgotten = self._prompts.pop(place, ())
        self._bytes -= _size_bytes(forgotten)
        return forgotten


def shared_turns(before: PromptDigests, now: PromptDigests) -> int:
    """Number of turns that both begin with."""
    shared = 0
    for earlier, later in zip(before.turns, now.turns, strict=False):
        if earlier.exact != later.exact:
            break
        shared += 1
    return shared


def _most_shared(prompts: Sequence[AnsweredPrompt], now: PromptDigests) -> AnsweredPrompt:
    """The prompt that shares most turns; of several the latest."""
    if len(prompts) == 1:
        return prompts[0]
    return max(reversed(prompts), key=lambda prompt: shared_turns(prompt.digests, now))


def _size_bytes(prompts: Sequence[AnsweredPrompt]) -> int:
    return sum([prompt.size_bytes for prompt in prompts])
