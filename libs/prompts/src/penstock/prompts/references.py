"""Values that a conversation holds already, said by name: `[same as $.flights[0] in the result of
tool call c1]`. Plain text in, text out.

Works on spans of the text itself, so that what stays keeps its bytes: strings their escapes,
numbers their lexemes. Only whole objects and arrays are replaced, and only by a name under which
the same bytes stand in an earlier turn; `restored` is the way back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from penstock.prompts.conversation import Policy, Turn

MARK = "[same as "
WHOLE = MARK + "the result of tool call {}]"
NAMED = '"' + MARK + '{} in the result of tool call {}]"'

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^"{}\[\],:]+')
_NAMED = re.compile(
    r'"\[same as (\$[\w.\[\]-]*) in the result of tool call ([\w.:-]{1,64})\]"', re.ASCII
)
_WHOLE = re.compile(r"\[same as the result of tool call ([\w.:-]{1,64})\]", re.ASCII)
_KEY = re.compile(r"[\w-]+", re.ASCII)
_CALL_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Value(NamedTuple):
    """An object or array in a text: its span, and its path such as `$.flights[0]`; that is empty
    below a key without a plain name.
    """

    start: int
    end: int
    path: str


def values(text: str) -> Iterator[Value]:
    """Objects and arrays of a JSON text without blank space, the inner ones before those around
    them.
    """
    open_at: list[tuple[int, str]] = []
    path, key, index = "$", "", [0]
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in ("{", "["):
            if open_at:
                path = _below(open_at[-1][1], key if text[open_at[-1][0]] == "{" else index[-1])
            open_at.append((token.start(), path))
            index.append(0)
        elif sign in ("}", "]"):
            start, path = open_at.pop()
            index.pop()
            yield Value(start, token.end(), path)
        elif sign == ",":
            index[-1] += 1
        elif sign[0] == '"' and text[token.end() : token.end() + 1] == ":":
            key = sign[1:-1]


def _below(path: str, step: str | int) -> str:
    if not path:
        return ""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if _KEY.fullmatch(step) else ""


class Named:
    """Values of the turns so far, by their bytes; `found` are those of the text that is given.

    One for each conversation.
    """

    def __init__(self, least_bytes: int) -> None:
        self._least = least_bytes
        self._names: dict[str, str] = {}

    def learn(self, text: str, found: Sequence[Value], tool_call_id: str) -> None:
        """What stands in this result can be pointed to from later ones; the first place of a value
        counts.
        """
        for value in found:
            if value.path and value.end - value.start >= self._least:
                self._names.setdefault(
                    text[value.start : value.end], NAMED.format(value.path, tool_call_id)
                )

    def replaced(self, text: str, found: Sequence[Value]) -> str | None:
        """The text with the largest values that are known by name; None where there is none, or
        where it has names already.
        """
        if MARK in text or not self._names:
            return None
        out: list[str] = []
        end = 0
        for value in sorted(self._known(text, found), key=lambda known: (known.start, -known.end)):
            if value.start >= end:
                out += [text[end : value.start], self._names[text[value.start : value.end]]]
                end = value.end
        return "".join([*out, text[end:]]) if out else None

    def _known(self, text: str, found: Sequence[Value]) -> Iterator[Value]:
        for value in found:
            size = value.end - value.start
            if size >= self._least and len(
                self._names.get(text[value.start : value.end], text)
            ) < size < len(text):
                yield value


class Result(NamedTuple):
    """A tool result as later ones may repeat it: shortened by itself, with its values where it is
    JSON, and under the name of its call.
    """

    text: str
    found: Sequence[Value]
    name: str


class Said:
    """Tool results so far that later ones may point to. One for each conversation.

    A name means the first result of its call: a second one under the same name neither points
    anywhere nor is pointed to, and what a turn becomes depends on those before it only.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._names: set[str] = set()
        self._whole: dict[bytes, str] = {}
        self._named = Named(policy.least_value_bytes)

    def result(self, turn: Turn, text: str, is_json: bool) -> Result:
        """The turn's result; its name is taken from then on."""
        name = turn.tool_call_id
        usable = name not in self._names and _CALL_ID.fullmatch(name) is not None
        self._names.add(name)
        long = (
            is_json
            and self._policy.named_values
            and usable
            and len(text) >= self._policy.least_value_bytes
        )
        return Result(text, tuple(values(text)) if long else (), name if usable else "")

    def repeat_of(self, result: Result) -> str:
        """The call whose result this one repeats, where that is worth a reference; empty for none,
        and for what is a reference already.
        """
        if _WHOLE.fullmatch(result.text):
            return ""
        long = len(result.text.encode("utf-8", "surrogatepass")) >= self._policy.least_repeat_bytes
        return self._whole.get(_digest(result.text), "") if long and result.name else ""

    def by_name(self, result: Result) -> str | None:
        """The result with the values that stand in earlier ones said by name; None where there is
        none.
        """
        return self._named.replaced(result.text, result.found)

    def learn(self, result: Result) -> None:
        """Later results may point to this one."""
        if result.name:
            self._whole.setdefault(_digest(result.text), result.name)
            self._named.learn(result.text, result.found, result.name)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def restored(text: str, result_of: Callable[[str], str]) -> str:
    """The text with every name replaced by what it stands for; `result_of` gives a tool call's
    restored result without blank space.

    Raises:
        KeyError: a name stands for nothing.
    """
    if whole := _WHOLE.fullmatch(text):
        return result_of(whole.group(1))

    def said(name: re.Match[str]) -> str:
        origin = result_of(name.group(2))
        found = {value.path: origin[value.start : value.end] for value in values(origin)}
        return found[name.group(1)]

    return _NAMED.sub(said, text)
