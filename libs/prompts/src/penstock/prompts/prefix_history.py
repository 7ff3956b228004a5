"""The last prompt of each conversation that was answered, what broke the next one's prefix, and
what became of it at the provider's cache.

Only a prompt that was answered is compared with: what failed, or is still in flight, may never have
come to a provider's cache. How much of a prompt is shared is an estimate; what was really read is
in the usage that the provider reports, and `prefix_cost.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from penstock.prompts.answered_prompts import (
    MAX_BYTES,
    MAX_CONVERSATIONS,
    AnsweredPrompt,
    AnsweredPrompts,
    Place,
    shared_turns,
)
from penstock.prompts.conversation import Conversation
from penstock.prompts.prefix_breaks import PrefixBreak, find_break
from penstock.prompts.prefix_cost import CacheTerms, PrefixRead, ReportedPrompt, explain_read
from penstock.prompts.prompt_digests import (
    KnownTools,
    PromptDigests,
    ToolDigests,
    TurnDigests,
    began,
    digests_of,
)

NO_SETTINGS: Mapping[str, str] = {}
DEFAULT_TERMS = CacheTerms()
MODEL = "model"
"""The setting that says which model a prompt was sent to; each model of a conversation has its own
last prompts.
"""


class ComparedPrompt(NamedTuple):
    """A prompt that is sent, beside the one before it.

    Attributes:
        place: its conversation and model.
        digests: its digests.
        previous: the prompt before it; None where none is known.
        broken: where it departs from that one and how, without its texts; None where it only goes
            on.
        times: prompts in a row, this one among them, that broke at the same place in the same way.
    """

    place: Place
    digests: PromptDigests
    previous: AnsweredPrompt | None
    broken: PrefixBreak | None
    times: int

    @property
    def share(self) -> float:
        """Part of the prompt, 0 to 1, in whole tools and turns, that the previous one began
        with.
        """
        if self.previous is None:
            return 0.0
        return _share(self.previous.digests, self.digests)

    @property
    def since(self) -> ReportedPrompt | None:
        """The first of the prompts before it that broke in the same way; None where this is the
        first, or nothing broke.
        """
        return self.previous.since if self.previous is not None and self.times > 1 else None


class PrefixHistory:
    """Compares prompts with the last answered ones of their conversations, and remembers them."""

    def __init__(
        self, max_conversations: int = MAX_CONVERSATIONS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._prompts = AnsweredPrompts(max_conversations, max_bytes)
        self._tools = KnownTools()

    @property
    def size_bytes(self) -> int:
        """About what the remembered prompts take in memory."""
        return self._prompts.size_bytes

    def compare(
        self,
        session: Hashable,
        conversation: Conversation,
        settings: Mapping[str, str] = NO_SETTINGS,
        without_images: Sequence[bytes] = (),
    ) -> ComparedPrompt:
        """Compare a prompt that is about to be sent with the one before it.

        Args:
            session: whose conversations these are, by the caller's choice.
            conversation: the prompt.
            settings: see `PromptDigests`.
            without_images: see `digests_of`.
        """
        place = Place(session, settings.get(MODEL, ""), began(conversation))
        latest = self._prompts.latest(place)
        known = latest.digests if latest else None
        digests = digests_of(conversation, settings, without_images, known, self._tools)
        return _compared(place, digests, self._prompts.before(place, digests))

    def at_model(self, prompt: ComparedPrompt, model: str) -> ComparedPrompt:
        """The same prompt, sent to another model after all."""
        place = prompt.place._replace(model=model)
        settings = {**prompt.digests.settings, MODEL: hash(model)}
        digests = prompt.digests._replace(settings=settings)
        return _compared(place, digests, self._prompts.before(place, digests))

    def answered(
        self,
        prompt: ComparedPrompt,
        reported: ReportedPrompt,
        terms: CacheTerms = DEFAULT_TERMS,
        *,
        caches: bool = True,
    ) -> PrefixRead:
        """What became of a prompt's prefix, from what the provider reports of it; the prompt is
        remembered.

        Args:
            prompt: what `compare` said of it.
            reported: by the provider.
            terms: the provider's.
            caches: see `explain_read`.
        """
        self._remember(prompt, reported)
        before = prompt.previous.reported if prompt.previous else None
        return explain_read(before, reported, prompt.broken, terms, caches=caches)

    def _remember(self, prompt: ComparedPrompt, reported: ReportedPrompt) -> None:
        digests, broken = prompt.digests, prompt.broken
        since = (prompt.since or reported) if broken is not None else None
        made = AnsweredPrompt(digests, reported, broken, prompt.times, since, digests.size_bytes)
        before = prompt.previous
        is_branch = before is not None and _is_branch(before.digests, prompt)
        self._prompts.put(prompt.place, made, None if is_branch else before)


def _compared(
    place: Place, digests: PromptDigests, previous: AnsweredPrompt | None
) -> ComparedPrompt:
    if previous is None:
        return ComparedPrompt(place, digests, None, None, 0)
    broken = find_break(previous.digests, digests)
    times = 0
    if broken is not None:
        times = previous.times + 1 if broken == previous.broken else 1
    return ComparedPrompt(place, digests, previous, broken, times)


def _is_branch(before: PromptDigests, prompt: ComparedPrompt) -> bool:
    """Whether the conversation may go on from the earlier prompt as well: the new one is its
    beginning, or departs from it behind the first user turn.
    """
    turns = prompt.digests.turns
    if prompt.broken is None:
        return len(turns) < len(before.turns)
    shared = shared_turns(before, prompt.digests)
    return any(turn.role == "user" for turn in turns[:shared])


def _share(before: PromptDigests, now: PromptDigests) -> float:
    """Part of a prompt that another one began with, by characters."""
    if before.settings != now.settings:
        return 0.0
    shared = total = 0
    goes_on = True
    earlier: list[ToolDigests | TurnDigests] = [*before.tools, *before.turns]
    parts: list[ToolDigests | TurnDigests] = [*now.tools, *now.turns]
    for place, part in enumerate(parts):
        goes_on = goes_on and place < len(earlier) and earlier[place].exact == part.exact
        total += part.length
        shared += part.length if goes_on else 0
    return shared / total if total else 0.0
