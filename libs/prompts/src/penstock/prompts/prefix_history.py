"""The last prompt of each conversation that was answered, what broke the next one's prefix, and
what became of it at the provider's cache.

Only a prompt that was answered is compared with: what failed, or is still in flight, may never have
come to a provider's cache. How much of a prompt is shared is an estimate; what was really read is
in the usage that the provider reports, and `prefix_cost.py` compares the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.prompts.conversation import Conversation
from penstock.prompts.prefix_breaks import PrefixBreak, find_break
from penstock.prompts.prefix_cost import CacheTerms, PrefixRead, ReportedPrompt, explain_read
from penstock.prompts.prompt_digests import (
    KnownTools,
    PromptDigests,
    ToolDigests,
    TurnDigests,
    digests_of,
)

MAX_CONVERSATIONS = 4096
"""Conversations remembered."""
MAX_BYTES = 64 << 20
"""About what all of them take in memory."""
MAX_PROMPT_BYTES = 1 << 20
"""A prompt whose digests take more, one of some 3,000 turns, is not remembered."""
NO_SETTINGS: Mapping[str, str] = {}
DEFAULT_TERMS = CacheTerms()
MODEL = "model"
"""The setting that says which model a prompt was sent to; its last prompt is remembered for each
model of a conversation.
"""


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt as it is remembered.

    Attributes:
        digests: its digests.
        reported: what the provider reported of it.
        broken: where it departed from the one before it.
        times: prompts in a row, it among them, that broke at the same place in the same way.
        since: the first of them; None where nothing broke.
    """

    digests: PromptDigests
    reported: ReportedPrompt
    broken: PrefixBreak | None = None
    times: int = 0
    since: ReportedPrompt | None = None


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """A prompt that is sent, beside the one before it.

    Attributes:
        key: of its conversation.
        model: it is sent to.
        digests: its digests.
        previous: the prompt before it; None where none is known.
        broken: where it departs from that one and how, without its texts; None where it only goes
            on.
        times: prompts in a row, this one among them, that broke at the same place in the same way.
    """

    key: Hashable
    model: str
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
    """The last answered prompts, as digests.

    Conversations are known by a key of the caller's choice; the least recently used are forgotten.
    """

    def __init__(
        self, max_conversations: int = MAX_CONVERSATIONS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_conversations, self._max_bytes = max_conversations, max_bytes
        self._bytes = 0
        self._prompts: OrderedDict[tuple[Hashable, str], AnsweredPrompt] = OrderedDict()
        self._models: OrderedDict[Hashable, str] = OrderedDict()
        """The model that served each conversation last."""
        self._tools = KnownTools()

    def compare(
        self,
        key: Hashable,
        conversation: Conversation,
        settings: Mapping[str, str] = NO_SETTINGS,
        without_images: Sequence[bytes] = (),
    ) -> ComparedPrompt:
        """Compare a prompt that is about to be sent with the one before it.

        Args:
            key: of the conversation.
            conversation: the prompt.
            settings: see `PromptDigests`.
            without_images: see `digests_of`.
        """
        model = settings.get(MODEL, "")
        previous = self._previous(key, model)
        known = previous.digests if previous else None
        digests = digests_of(conversation, settings, without_images, known, self._tools)
        return _compared(key, model, digests, previous)

    def at_model(self, prompt: ComparedPrompt, model: str) -> ComparedPrompt:
        """The same prompt, sent to another model after all."""
        settings = {**prompt.digests.settings, MODEL: hash(model)}
        digests = prompt.digests._replace(settings=settings)
        return _compared(prompt.key, model, digests, self._previous(prompt.key, model))

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

    def _previous(self, key: Hashable, model: str) -> AnsweredPrompt | None:
        """The last prompt of the conversation with this model, else with the model before it."""
        found = self._prompts.get((key, model))
        return found or self._prompts.get((key, self._models.get(key, "")))

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return self._bytes

    def _remember(self, prompt: ComparedPrompt, reported: ReportedPrompt) -> None:
        place = prompt.key, prompt.model
        known = self._prompts.get(place)
        if known is not None and known.reported.at_s > reported.at_s:
            return  # It was sent later, and answered sooner.
        self._forget(place)
        made = AnsweredPrompt(prompt.digests, reported, prompt.broken, prompt.times)
        if prompt.broken is not None:
            made = replace(made, since=prompt.since or reported)
        if made.digests.size_bytes > MAX_PROMPT_BYTES:
            return
        self._prompts[place] = made
        self._bytes += made.digests.size_bytes
        self._models[prompt.key] = prompt.model
        self._models.move_to_end(prompt.key)
        while len(self._prompts) > self._max_conversations or self._bytes > self._max_bytes:
            self._forget(next(iter(self._prompts)))
        if len(self._models) > self._max_conversations:
            self._models.popitem(last=False)

    def _forget(self, place: tuple[Hashable, str]) -> None:
        forgotten = self._prompts.pop(place, None)
        if forgotten is not None:
            self._bytes -= forgotten.digests.size_bytes


def _compared(
    key: Hashable, model: str, digests: PromptDigests, previous: AnsweredPrompt | None
) -> ComparedPrompt:
    if previous is None:
        return ComparedPrompt(key, model, digests, None, None, 0)
    broken = find_break(previous.digests, digests)
    times = 0
    if broken is not None:
        times = previous.times + 1 if broken == previous.broken else 1
    return ComparedPrompt(key, model, digests, previous, broken, times)


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
