"""Changes injected into a conversation's prompts, each of one kind, as agents make them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix_breaks import BreakKind

Change = Callable[["Prompt"], "Prompt | None"]
"""Makes the changed prompt; None where this one has nothing to change."""
SETTINGS: Mapping[str, str] = {"model": "large", "reasoning": "low"}
HEAD = (
    "Assistant of the day, caf\u00e9 edition.  Answer briefly.\n"
    "The time is {clock}.\nToday: {date}\nRequest-ID: {request}\nSession {session} is open.\n"
    "This is call number {counter}.\n"
)
VALUES = {
    "clock": "2026-03-01 10:00:00",
    "date": "2026-03-01",
    "request": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "session": "sess-4f2a9c1b7d",
    "counter": "17",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is sent: its text, its settings, and its turns without their images."""

    conversation: Conversation
    settings: Mapping[str, str]
    without_images: tuple[bytes, ...] = ()

    def with_turns(self, turns: tuple[Turn, ...]) -> Prompt:
        """The same with other turns."""
        return replace(self, conversation=replace(self.conversation, turns=turns))

    def with_tools(self, tools: tuple[ToolSpec, ...]) -> Prompt:
        """The same with other tools."""
        return replace(self, conversation=replace(self.conversation, tools=tools))


def head(**changed: str) -> str:
    """The first lines of the instructions, with values that agents put there."""
    return HEAD.format(**(VALUES | changed))


def prompt_of(turns: tuple[Turn, ...], tools: tuple[ToolSpec, ...]) -> Prompt:
    """A prompt of a recorded conversation: the lines of `head` before its instructions, an image in
    its second turn, a breakpoint behind its instructions and its last turn.
    """
    first, asked, *rest = turns
    made = (
        replace(first, content=head() + first.content, breakpoint=True),
        replace(asked, rest=b"image 1"),
        *rest,
    )
    made = (*made[:-1], replace(made[-1], breakpoint=True))
    blank = (b"", b"image", *(b"" for _ in rest))
    return Prompt(Conversation(made, tools), SETTINGS, blank)


def _in_head(**values: str) -> Change:
    def change(prompt: Prompt) -> Prompt:
        return _edited(prompt, 0, lambda text: text.replace(head(), head(**values)))

    return change


def _edited(prompt: Prompt, index: int, edit: Callable[[str], str]) -> Prompt:
    turns = list(prompt.conversation.turns)
    turns[index] = replace(turns[index], content=edit(turns[index].content))
    return prompt.with_turns(tuple(turns))


def _edit_first(edit: Callable[[str], str]) -> Change:
    return lambda prompt: _edited(prompt, 0, edit)


def _tools_reordered(prompt: Prompt) -> Prompt | None:
    tools = prompt.conversation.tools
    return prompt.with_tools(tools[::-1]) if len(tools) > 1 else None


def _tool_added(prompt: Prompt) -> Prompt | None:
    tools = prompt.conversation.tools
    return prompt.with_tools((*tools, ToolSpec("new_tool", "new", "{}"))) if tools else None


def _tool_removed(prompt: Prompt) -> Prompt | None:
    tools = prompt.conversation.tools
    return prompt.with_tools(tools[1:]) if tools else None


def _first_tool(change: Callable[[ToolSpec], ToolSpec]) -> Change:
    def changed(prompt: Prompt) -> Prompt | None:
        tools = prompt.conversation.tools
        if not tools or change(tools[0]) == tools[0]:
            return None
        return prompt.with_tools((change(tools[0]), *tools[1:]))

    return changed


def _keys_reversed(tool: ToolSpec) -> ToolSpec:
    schema = json.loads(tool.parameters)
    return replace(tool, parameters=json.dumps(dict(reversed(schema.items()))))


def _truncated(prompt: Prompt) -> Prompt | None:
    turns = prompt.conversation.turns
    return prompt.with_turns((turns[0], *turns[3:])) if len(turns) > 4 else None


def _summarised(prompt: Prompt) -> Prompt | None:
    turns = prompt.conversation.turns
    summary = Turn("user", "What was said before: the customer asked, and was answered.")
    return prompt.with_turns((turns[0], summary, *turns[4:])) if len(turns) > 6 else None


def _old_turn_edited(prompt: Prompt) -> Prompt | None:
    turns = prompt.conversation.turns
    place = next((n for n, turn in enumerate(turns) if n > 1 and turn.role == "assistant"), None)
    if place is None or place >= len(turns) - 1:
        return None
    return _edited(prompt, place, lambda text: f"{text} As I said.")


def _result_shortened(prompt: Prompt) -> Prompt | None:
    turns = prompt.conversation.turns[:-1]
    place = next(
        (n for n, turn in enumerate(turns) if turn.role == "tool" and len(turn.content) > 80), None
    )
    if place is None:
        return None
    return _edited(prompt, place, lambda text: f"{text[: len(text) // 2]} [shortened]")


def _system_inserted(prompt: Prompt) -> Prompt | None:
    turns = prompt.conversation.turns
    late = Turn("system", "Be kind to the customer.")
    return prompt.with_turns((*turns[:2], late, *turns[2:])) if len(turns) > 3 else None


def _image_encoded_anew(prompt: Prompt) -> Prompt:
    turns = list(prompt.conversation.turns)
    turns[1] = replace(turns[1], rest=b"image 2")
    return prompt.with_turns(tuple(turns))


def _breakpoint_moved(prompt: Prompt) -> Prompt | None:
    """The only breakpoint moves to the first tool, where none was before."""
    tools = prompt.conversation.tools
    if not tools:
        return None
    turns = tuple(replace(turn, breakpoint=False) for turn in prompt.conversation.turns)
    moved = prompt.with_turns(turns)
    return moved.with_tools((replace(tools[0], breakpoint=True), *tools[1:]))


def _setting(name: str, value: str) -> Change:
    return lambda prompt: replace(prompt, settings={**prompt.settings, name: value})


CHANGES: Mapping[BreakKind, Change] = {
    BreakKind.CLOCK: _in_head(clock="2026-03-01 10:00:09"),
    BreakKind.DATE: _in_head(date="2026-03-02"),
    BreakKind.REQUEST_ID: _in_head(request="7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    BreakKind.SESSION_ID: _in_head(session="sess-9d8c7b6a5e"),
    BreakKind.COUNTER: _in_head(counter="18"),
    BreakKind.TOOLS_REORDERED: _tools_reordered,
    BreakKind.TOOL_ADDED: _tool_added,
    BreakKind.TOOL_REMOVED: _tool_removed,
    BreakKind.TOOL_DESCRIPTION: _first_tool(lambda tool: replace(tool, description="other words")),
    BreakKind.TOOL_KEYS_REORDERED: _first_tool(_keys_reversed),
    BreakKind.WHITE_SPACE: _edit_first(lambda text: text.replace(".  Answer", ". Answer")),
    BreakKind.LINE_ENDS: _edit_first(lambda text: text.replace("\n", "\r\n")),
    BreakKind.UNICODE_FORM: _edit_first(lambda text: unicodedata.normalize("NFD", text)),
    BreakKind.HISTORY_TRUNCATED: _truncated,
    BreakKind.HISTORY_SUMMARISED: _summarised,
    BreakKind.OLD_TURN_EDITED: _old_turn_edited,
    BreakKind.TOOL_RESULT_SHORTENED: _result_shortened,
    BreakKind.SYSTEM_INSERTED: _system_inserted,
    BreakKind.IMAGE: _image_encoded_anew,
    BreakKind.BREAKPOINT: _breakpoint_moved,
    BreakKind.MODEL: _setting("model", "small"),
    BreakKind.PARAMETER: _setting("reasoning", "high"),
}
