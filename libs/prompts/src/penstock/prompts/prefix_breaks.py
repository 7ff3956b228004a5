"""Why a prompt does not go on from the previous one of its conversation: where it departs, and how.

Providers match prefixes in the order tools, system, messages. The first place that differs is what
broke the prefix; what differs behind it would have been paid for anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from penstock.prompts.prompt_digests import (
    Digest,
    LineDigests,
    PromptDigests,
    ToolDigests,
    TurnDigests,
)
from penstock.prompts.volatile import ValueKind


class BreakKind(Enum):
    """What kind of change broke a prefix; the value says it in words."""

    MODEL = "the model is another one"
    PARAMETER = "a parameter changed that the provider's cache goes by"
    TOOLS_REORDERED = "the tools are in another order"
    TOOL_ADDED = "a tool was added"
    TOOL_REMOVED = "a tool was left out"
    TOOL_DESCRIPTION = "the description of a tool changed"
    TOOL_KEYS_REORDERED = "the schema of a tool is the same in another order or spacing"
    TOOL_CHANGED = "a tool was changed"
    CLOCK = "a time in it changed"
    DATE = "a date in it changed"
    REQUEST_ID = "an identifier of the request in it changed"
    SESSION_ID = "an identifier of the session in it changed"
    COUNTER = "a number in it changed"
    WHITE_SPACE = "only its white space changed"
    LINE_ENDS = "only its line ends changed"
    UNICODE_FORM = "only the form of its Unicode characters changed"
    IMAGE = "an image in it was encoded anew"
    BREAKPOINT = "no cache breakpoint stands where the previous prompt had one"
    HISTORY_TRUNCATED = "turns before it were left out"
    HISTORY_SUMMARISED = "turns were replaced by one that was not there"
    TURNS_INSERTED = "turns were inserted"
    SYSTEM_INSERTED = "a system turn was inserted"
    TOOL_RESULT_SHORTENED = "the result of a tool was shortened"
    OLD_TURN_EDITED = "it was changed"


LOSSLESS_REPAIRS = {
    BreakKind.TOOLS_REORDERED: "stable_prefix",
    BreakKind.CLOCK: "later_system_turn",
    BreakKind.REQUEST_ID: "later_system_turn",
    BreakKind.SESSION_ID: "later_system_turn",
    BreakKind.TOOL_KEYS_REORDERED: "sort_schema_keys",
}
"""The setting of a shaping rule that mends a kind without loss, where there is one. Values are
moved only where a line holds nothing else; see `prefix.split_volatile`.
"""
OF_TOOLS = frozenset(
    {
        BreakKind.TOOLS_REORDERED,
        BreakKind.TOOL_ADDED,
        BreakKind.TOOL_REMOVED,
        BreakKind.TOOL_DESCRIPTION,
        BreakKind.TOOL_KEYS_REORDERED,
        BreakKind.TOOL_CHANGED,
    }
)
"""Changes of the list of tools, which stands before all turns."""
LOOK_BACK = 20
"""Blocks before a breakpoint in which Anthropic looks for an earlier one."""
OF_VALUES = {
    ValueKind.CLOCK: BreakKind.CLOCK,
    ValueKind.DATE: BreakKind.DATE,
    ValueKind.REQUEST_ID: BreakKind.REQUEST_ID,
    ValueKind.SESSION_ID: BreakKind.SESSION_ID,
    ValueKind.COUNTER: BreakKind.COUNTER,
}


@dataclass(frozen=True, slots=True)
class PrefixBreak:
    """Where and how a prompt departs from the previous one.

    Attributes:
        kind: of the change.
        place: a path such as `tools[1]`, `turns[0]` or `model`.
        role: of the turn; empty for tools and settings.
        line: of the turn's text, from 1; 0 where the whole turn is meant.
    """

    kind: BreakKind
    place: str
    role: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.place} ({self.role})" if self.role else self.place
        line = f", line {self.line}" if self.line else ""
        return f"{where}{line}: {self.kind.value}"

    @property
    def repair(self) -> str:
        """The setting of a shaping rule that may mend it without loss; empty for none."""
        return LOSSLESS_REPAIRS.get(self.kind, "")


def find_break(before: PromptDigests, now: PromptDigests) -> PrefixBreak | None:
    """The first place at which `now` departs from `before`; None where it only goes on, and where
    it is the same prompt or the beginning of it.
    """
    return (
        _settings(before, now, ("model",))
        or _tools(before.tools, now.tools)
        or _settings(before, now, sorted(before.settings.keys() | now.settings.keys()))
        or _turns(before.turns, now.turns)
        or _breakpoints(before, now)
    )


def _settings(
    before: PromptDigests, now: PromptDigests, names: Sequence[str]
) -> PrefixBreak | None:
    if before.settings == now.settings:
        return None
    for name in names:
        if before.settings.get(name) != now.settings.get(name):
            kind = BreakKind.MODEL if name == "model" else BreakKind.PARAMETER
            return PrefixBreak(kind, name)
    return None


def _tools(before: Sequence[ToolDigests], now: Sequence[ToolDigests]) -> PrefixBreak | None:
    if before == now:
        return None
    old, new = [tool.exact for tool in before], [tool.exact for tool in now]
    place = _shared(old, new)
    if old == new:
        return None
    kind = _tool_kind(before, now, place)
    return PrefixBreak(kind, f"tools[{place}]")


def _tool_kind(before: Sequence[ToolDigests], now: Sequence[ToolDigests], place: int) -> BreakKind:
    old, new = {tool.exact for tool in before}, {tool.exact for tool in now}
    if sorted(tool.exact for tool in before) == sorted(tool.exact for tool in now):
        return BreakKind.TOOLS_REORDERED
    if old < new:
        return BreakKind.TOOL_ADDED
    if new < old:
        return BreakKind.TOOL_REMOVED
    if place < min(len(before), len(now)) and before[place].name == now[place].name:
        if before[place].without_description == now[place].without_description:
            return BreakKind.TOOL_DESCRIPTION
        if before[place].sorted_keys == now[place].sorted_keys:
            return BreakKind.TOOL_KEYS_REORDERED
        return BreakKind.TOOL_CHANGED
    names_before, names_now = {tool.name for tool in before}, {tool.name for tool in now}
    if names_before < names_now:
        return BreakKind.TOOL_ADDED
    return BreakKind.TOOL_REMOVED if names_now < names_before else BreakKind.TOOL_CHANGED


def _turns(before: Sequence[TurnDigests], now: Sequence[TurnDigests]) -> PrefixBreak | None:
    if now[: len(before)] == before:
        return None  # The usual case, and soon seen: digests that are known are the same objects.
    old, new = [turn.exact for turn in before], [turn.exact for turn in now]
    place = _shared(old, new)
    if place == min(len(old), len(new)):
        return None
    turn = now[place]
    moved = _moved(before, now, place)
    if moved is not None:
        return PrefixBreak(moved, f"turns[{place}]", turn.role)
    kind, line = _changed(before[place], turn)
    return PrefixBreak(kind, f"turns[{place}]", turn.role, line)


def _moved(
    before: Sequence[TurnDigests], now: Sequence[TurnDigests], place: int
) -> BreakKind | None:
    """The kind where turns came in or went, rather than changed."""
    old, new = [turn.exact for turn in before], [turn.exact for turn in now]
    if old[place] in new[place + 1 :]:
        added = now[place : new.index(old[place], place + 1)]
        system = all(turn.role == "system" for turn in added)
        return BreakKind.SYSTEM_INSERTED if system else BreakKind.TURNS_INSERTED
    if new[place] in old[place + 1 :]:
        return BreakKind.HISTORY_TRUNCATED
    if place + 1 < len(new) and new[place + 1] in old[place + 2 :]:
        return BreakKind.HISTORY_SUMMARISED
    return None


def _changed(before: TurnDigests, now: TurnDigests) -> tuple[BreakKind, int]:
    """The kind of change of one turn, and the line of it; 0 for the whole turn."""
    if before.role == now.role and before.answers == now.answers:
        if before.text == now.text and before.without_images == now.without_images:
            return BreakKind.IMAGE, 0
        if before.rest == now.rest:
            return _text_changed(before, now)
    return BreakKind.OLD_TURN_EDITED, 0


def _text_changed(before: TurnDigests, now: TurnDigests) -> tuple[BreakKind, int]:
    for same, kind in (
        (before.line_ends == now.line_ends, BreakKind.LINE_ENDS),
        (before.space == now.space, BreakKind.WHITE_SPACE),
        (before.unicode == now.unicode, BreakKind.UNICODE_FORM),
    ):
        if same:
            return kind, 0
    value = _value_changed(before.lines or (), now.lines or ())
    if value is not None:
        return value
    if now.role == "tool" and now.length < before.length:
        return BreakKind.TOOL_RESULT_SHORTENED, 0
    return BreakKind.OLD_TURN_EDITED, 0


def _value_changed(
    before: Sequence[LineDigests], now: Sequence[LineDigests]
) -> tuple[BreakKind, int] | None:
    """The first value that changed, where the first line that differs does so in values alone."""
    place = _shared([line.exact for line in before], [line.exact for line in now])
    if place == min(len(before), len(now)) or before[place].masked != now[place].masked:
        return None
    pairs = zip(before[place].values, now[place].values, strict=False)
    for (kind, old), (_, new) in pairs:
        if old != new:
            return OF_VALUES[kind], place + 1
    return None


def _breakpoints(before: PromptDigests, now: PromptDigests) -> PrefixBreak | None:
    """Whether a provider that caches at breakpoints finds none of the previous ones again."""
    written, asked = before.breakpoints, now.breakpoints
    if not written or not asked:
        return None
    if any(0 <= later - earlier <= LOOK_BACK for earlier in written for later in asked):
        return None
    return PrefixBreak(BreakKind.BREAKPOINT, _named(min(asked), now))


def _named(place: int, prompt: PromptDigests) -> str:
    tools = len(prompt.tools)
    return f"tools[{place}]" if place < tools else f"turns[{place - tools}]"


def _shared(before: Sequence[Digest], now: Sequence[Digest]) -> int:
    """Number of leading digests that are equal."""
    for position, (old, new) in enumerate(zip(before, now, strict=False)):
        if old != new:
            return position
    return min(len(before), len(now))
