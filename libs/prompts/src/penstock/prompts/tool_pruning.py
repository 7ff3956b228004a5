"""Lossy and opt-in: which of an agent's tools a conversation is sent with.

The fewest most probable tools are kept whose probabilities leave out at most the share that the
policy allows (a prediction set: Romano, Sesia and Candès, "Classification with Valid and Adaptive
Coverage", 2020). Where no tool stands out that is nearly all of them, and then all are kept.

The choice depends on nothing but the tools and the turns, so every router makes the same one, and
the next prompt of a conversation begins with the tools of the one before it:

- The first user turn chooses.
- A later one that may need a tool which was left out brings all tools back, behind those that were
  kept, and so does a call in the history to such a tool. A conversation's tools change once at
  most: each change of tools writes the whole prompt to the provider's cache again.
- Tools kept together stand in the order of their names, whatever order they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from penstock.prompts.conversation import ToolSpec
from penstock.prompts.selection import words
from penstock.prompts.tool_ranking import is_readable

MIN_TOOLS = 8
"""Fewer tools are left as they are."""
MAX_KEPT_SHARE = 0.5
"""Share of the schemas' size from which all tools are kept."""
FULL_QUESTION_WORDS = 8
"""A user's turn of fewer words is read together with the turns before it."""

Probabilities = Callable[[str], Sequence[float]]
"""The probability of each tool, in their order, to be the one that a text needs."""


@dataclass(frozen=True, slots=True)
class PruningPolicy:
    """What may be left out.

    Attributes:
        omitted_share: probability that may be left out of each user turn: the share of turns whose
            tool may be missing.
        always_keep: names of tools that are never left out.
    """

    omitted_share: float = 0.01
    always_keep: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """A user's turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """An assistant's turn that calls tools, by their names."""

    names: tuple[str, ...]


Step = Asked | Called
"""What a conversation's tools depend on."""


@dataclass(frozen=True, slots=True)
class Untouched:
    """The tools stay as they came, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """The tools to send, in their order, and the names of those left out."""

    kept: tuple[ToolSpec, ...]
    left_out: tuple[str, ...]


def prune(
    tools: Sequence[ToolSpec],
    steps: Sequence[Step],
    demanded: Collection[str],
    probabilities: Probabilities,
    policy: PruningPolicy,
) -> Pruned | Untouched:
    """The tools of a prompt.

    Args:
        tools: all tools, as they came.
        steps: the conversation so far.
        demanded: tools that the caller's choice of tools names: sent with this prompt whatever was
            kept, behind the others.
        probabilities: of `tools`.
        policy: what may be left out.
    """
    names = [tool.name for tool in tools]
    if len(tools) < MIN_TOOLS:
        return Untouched(f"fewer than {MIN_TOOLS} tools")
    if len(set(names)) < len(names):
        return Untouched("two tools have the same name")
    choice = _Choice(tools, probabilities, policy)
    for step in steps:
        choice.take(step)
    if choice.reason:
        return Untouched(choice.reason)
    choice.append([place for place, name in enumerate(names) if name in demanded])
    kept = _with_breakpoint([tools[place] for place in choice.kept], tools)
    left_out = tuple(sorted(set(names) - {tool.name for tool in kept}))
    return Pruned(kept, left_out)


class _Choice:
    """The tools of one conversation, turn by turn; `kept` has their places and only grows."""

    def __init__(
        self, tools: Sequence[ToolSpec], probabilities: Probabilities, policy: PruningPolicy
    ) -> None:
        self._tools, self._probabilities, self._policy = tools, probabilities, policy
        self._sizes = [
            len(tool.name) + len(tool.description) + len(tool.parameters) for tool in tools
        ]
        self._question: str | None = None
        self.kept: list[int] = []
        self.reason = "no user turn"
        """Why all tools stay as they came; empty once some were chosen."""

    def take(self, step: Step) -> None:
        """Go on by one step."""
        match step:
            case Asked(text):
                self._ask(text)
            case Called(names):
                called = {place for place, tool in enumerate(self._tools) if tool.name in names}
                if self.kept and not called <= set(self.kept):
                    self.append(range(len(self._tools)))

    def append(self, places: Iterable[int]) -> None:
        """Keep these tools as well."""
        fresh = set(places) - set(self.kept)
        self.kept += sorted(fresh, key=lambda place: self._tools[place].name)

    def _ask(self, text: str) -> None:
        is_first = self._question is None
        is_full = is_first or len(words(text)) >= FULL_QUESTION_WORDS
        self._question = text if is_full else f"{text}\n{self._question}"
        if is_first:
            self._choose(text)
        elif self.kept and not self._covers(self._question):
            self.append(range(len(self._tools)))

    def _choose(self, question: str) -> None:
        """Keep what the first turn needs, unless that is most of it."""
        self.reason = "no tools stand out"
        if not is_readable(question):
            return
        named = [
            place for place, tool in enumerate(self._tools) if tool.name in self._policy.always_keep
        ]
        wanted = fewest(self._probabilities(question), named, self._policy.omitted_share)
        size = sum(self._sizes[place] for place in wanted)
        if size <= MAX_KEPT_SHARE * sum(self._sizes):
            self.append(wanted)
            self.reason = ""

    def _covers(self, question: str) -> bool:
        """Whether what is kept is enough for a later turn."""
        if len(self.kept) == len(self._tools):
            return True
        if not is_readable(question):
            return False
        probable = self._probabilities(question)
        return 1 - sum(probable[place] for place in self.kept) <= self._policy.omitted_share


def fewest(probable: Sequence[float], always: Collection[int], omitted_share: float) -> list[int]:
    """The places that are always kept, and the fewest most probable ones beside them, so that at
    most `omitted_share` of the probability is left out.
    """
    kept = list(always)
    left_out = 1 - sum(probable[place] for place in kept)
    for place in sorted(range(len(probable)), key=lambda place: (-probable[place], place)):
        if left_out <= omitted_share:
            break
        if place not in always:
            kept.append(place)
            left_out -= probable[place]
    return kept


def _with_breakpoint(kept: Sequence[ToolSpec], tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """The kept tools; if a provider's breakpoint stood behind some tool, one is behind the last."""
    marked = any(tool.breakpoint for tool in tools)
    plain = [replace(tool, breakpoint=False) if tool.breakpoint else tool for tool in kept]
    if marked and plain:
        plain[-1] = replace(plain[-1], breakpoint=True)
    return tuple(plain)
