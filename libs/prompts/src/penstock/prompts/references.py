"""Values and results that a conversation already has, replaced by references to them.

A tool result that repeats an earlier one becomes `[same as the result of tool call c1]`; an object
or array in it that stands in an earlier result becomes
`"[same as $.flights[0] in the result of tool call c1]"`.

All of this works on spans of the text, so that what stays keeps its bytes: strings their escapes,
numbers their digits. Only whole objects and arrays are replaced, and only by a reference to the
same bytes in an earlier turn. `resolve_references` is the inverse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from penstock.prompts.conversation import Policy, Turn

MARK = "[same as "
RESULT_REFERENCE = MARK + "the result of tool call {}]"
VALUE_REFERENCE = '"' + MARK + '{} in the result of tool call {}]"'

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^"{}\[\],:]+')
_VALUE_REFERENCE = re.compile(
    r'"\[same as (\$[\w.\[\]-]*) in the result of tool call ([\w.:-]{1,64})\]"', re.ASCII
)
_RESULT_REFERENCE = re.compile(r"\[same as the result of tool call ([\w.:-]{1,64})\]", re.ASCII)
_PLAIN_KEY = re.compile(r"[\w-]+", re.ASCII)
_CALL_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class JsonValue(NamedTuple):
    """An object or array in a text: its span, and its path such as `$.flights[0]`.

    The path is empty below a key that has other characters than letters, digits, `_` and `-`.
    """

    start: int
    end: int
    path: str


def json_values(text: str) -> Iterator[JsonValue]:
    """Objects and arrays of a JSON text without whitespace, inner ones before outer ones."""
    open_values: list[tuple[int, str]] = []
    path, key, index = "$", "", [0]
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in ("{", "["):
            if open_values:
                parent_start, parent_path = open_values[-1]
                path = _child_path(parent_path, key if text[parent_start] == "{" else index[-1])
            open_values.append((token.start(), path))
            index.append(0)
        elif sign in ("}", "]"):
            start, path = open_values.pop()
            index.pop()
            yield JsonValue(start, token.end(), path)
        elif sign == ",":
            index[-1] += 1
        elif sign[0] == '"' and text[token.end() : token.end() + 1] == ":":
            key = sign[1:-1]


def _child_path(path: str, step: str | int) -> str:
    if not path:
        return ""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if _PLAIN_KEY.fullmatch(step) else ""


class ValueIndex:
    """References to the objects and arrays of earlier results, by their bytes.

    One for each conversation. Values shorter than `min_bytes` are ignored.
    """

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes
        self._references: dict[str, str] = {}

    def add(self, text: str, values: Sequence[JsonValue], tool_call_id: str) -> None:
        """Let later results refer to the values of this text; a value's first place counts."""
        for value in values:
            if value.path and value.end - value.start >= self._min_bytes:
                reference = VALUE_REFERENCE.format(value.path, tool_call_id)
                self._references.setdefault(text[value.start : value.end], reference)

    def replace(self, text: str, values: Sequence[JsonValue]) -> str | None:
        """The text with its largest known values replaced by references.

        None where no value is known, or where the text has references already.
        """
        if MARK in text or not self._references:
            return None
        pieces: list[str] = []
        end = 0
        known = self._known(text, values)
        for value in sorted(known, key=lambda value: (value.start, -value.end)):
            if value.start >= end:
                reference = self._references[text[value.start : value.end]]
                pieces += [text[end : value.start], reference]
                end = value.end
        return "".join([*pieces, text[end:]]) if pieces else None

    def _known(self, text: str, values: Sequence[JsonValue]) -> Iterator[JsonValue]:
        """Values with a reference that is shorter than they are, but not the whole text."""
        for value in values:
            size = value.end - value.start
            if size < self._min_bytes or size >= len(text):
                continue
            reference = self._references.get(text[value.start : value.end])
            if reference is not None and len(reference) < size:
                yield value


class ToolResult(NamedTuple):
    """A tool result as later ones may refer to it.

    Attributes:
        text: shortened by itself.
        values: its objects and arrays, where it is JSON.
        name: the id of its call; empty where it cannot be referred to.
    """

    text: str
    values: Sequence[JsonValue]
    name: str


class ReferenceIndex:
    """The tool results so far that later ones may refer to. One for each conversation; `values_of`
    gives the `json_values` of a text.

    A call id stands for the first result under it. A second result under the same id neither refers
    to others nor is referred to, so that what a turn becomes depends only on the turns before it.
    """

    def __init__(self, policy: Policy, values_of: Callable[[str], Sequence[JsonValue]]) -> None:
        self._policy = policy
        self._values_of = values_of
        self._names: set[str] = set()
        self._results: dict[str, str] = {}
        """Names by texts."""
        self._values = ValueIndex(policy.min_value_bytes)

    def result(self, turn: Turn, text: str, is_json: bool) -> ToolResult:
        """The turn's result with the text `text`; from now on its call id is taken."""
        name = turn.tool_call_id
        is_usable = name not in self._names and _CALL_ID.fullmatch(name) is not None
        self._names.add(name)
        has_values = (
            is_json
            and is_usable
            and self._policy.named_values
            and len(text) >= self._policy.min_value_bytes
        )
        values = self._values_of(text) if has_values else ()
        return ToolResult(text, values, name if is_usable else "")

    def find_repeated(self, result: ToolResult) -> str:
        """The call whose result this one repeats; empty for none.

        Short results and results that are references already repeat none.
        """
        if _RESULT_REFERENCE.fullmatch(result.text) or not result.name:
            return ""
        size = len(result.text.encode("utf-8", "surrogatepass"))
        if size < self._policy.min_repeat_bytes:
            return ""
        return self._results.get(result.text, "")

    def replace_values(self, result: ToolResult) -> str | None:
        """The result with references in place of values of earlier results; None for none."""
        return self._values.replace(result.text, result.values)

    def add(self, result: ToolResult) -> None:
        """Let later results refer to this one."""
        if result.name:
            self._results.setdefault(result.text, result.name)
            self._values.add(result.text, result.values, result.name)


def resolve_references(text: str, result_of: Callable[[str], str]) -> str:
    """The text with every reference replaced by what it stands for.

    Args:
        text: a tool result of an optimised conversation.
        result_of: the resolved result of a tool call, without whitespace.

    Raises:
        KeyError: a reference stands for nothing.
    """
    if whole := _RESULT_REFERENCE.fullmatch(text):
        return result_of(whole.group(1))

    def value_of(reference: re.Match[str]) -> str:
        result = result_of(reference.group(2))
        values = {value.path: result[value.start : value.end] for value in json_values(result)}
        return values[reference.group(1)]

    return _VALUE_REFERENCE.sub(value_of, text)
