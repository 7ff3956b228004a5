"""What the scripted provider answers, whatever wire it is asked by. Pure.

- A prompt that holds `status 429` (or another) is refused with it.
- After a tool's result, and where no tool may be called, the answer is text: the last turn again.
- A tool is called wherever one is offered and the last turn is the user's: the one that is
  required, else the one that the prompt names, else the first; all of them where the prompt holds
  `parallel`.
- Where a JSON form is asked for, the text is a value of its schema.
- A prompt that holds `refuse` is refused in words.
- Stops and the largest length are honoured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.bench.conformance.schema_values import object_named_in, value_of

Ending = Literal["stop", "length", "stop_sequence", "tools", "refusal"]
STATUS = re.compile(r"status (4\d\d|5\d\d)")
REFUSAL = "I cannot help with that."
THOUGHT = "First this, then that."
Json = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A request as both wires say it.

    Attributes:
        prompt: the text of the last turn.
        images: how many images that turn holds.
        is_result: whether the last turn is a tool's result.
        tools: the parameters of each tool by its name.
        may_call: whether tools may be called.
        required: the tool that must be called; empty for any.
        form: the schema of the answer, empty for any JSON object; None for text.
        stops: texts that end the answer.
        max_words: the answer's largest length; 0 for none.
        thinks: whether thinking is asked for.
    """

    prompt: str
    images: int = 0
    is_result: bool = False
    tools: Mapping[str, Json] = field(default_factory=dict)
    may_call: bool = True
    required: str = ""
    form: Json | None = None
    stops: Sequence[str] = ()
    max_words: int = 0
    thinks: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer: its text or refusal, its calls as pairs of name and arguments, and its end."""

    text: str = ""
    calls: tuple[tuple[str, Json], ...] = ()
    ending: Ending = "stop"
    stop: str = ""
    thought: str = ""

    @property
    def words(self) -> list[str]:
        """The text in pieces that make it when joined."""
        return re.findall(r"\S+\s*|\s+", self.text)

    @property
    def tokens(self) -> int:
        """Counted as one for each word and each call."""
        return max(1, len(self.words) + len(self.calls))


def refused_with(question: Question) -> int:
    """The status with which the prompt asks to be refused; 0 for none."""
    found = STATUS.search(question.prompt)
    return int(found.group(1)) if found else 0


def reply_to(question: Question) -> Reply:
    """The answer."""
    thought = THOUGHT if question.thinks else ""
    calls = () if question.is_result else _calls(question)
    if calls:
        return Reply(calls=calls, ending="tools", thought=thought)
    if "refuse" in question.prompt:
        return Reply(REFUSAL, ending="refusal", thought=thought)
    return _cut(Reply(_text(question), thought=thought), question)


def _calls(question: Question) -> tuple[tuple[str, Json], ...]:
    if not (question.tools and question.may_call):
        return ()
    names = list(question.tools)
    if question.required:
        names = [question.required]
    elif "parallel" not in question.prompt:
        names = [name for name in names if name in question.prompt][:1] or names[:1]
    return tuple((name, value_of(question.tools[name], question.prompt)) for name in names)


def _text(question: Question) -> str:
    if question.form is not None:
        schema, prompt = question.form, question.prompt
        return json.dumps(value_of(schema, prompt) if schema else object_named_in(prompt))
    seen = f" I see {question.images} image(s)." if question.images else ""
    return f"You said: {question.prompt or 'nothing'}.{seen}"


def _cut(reply: Reply, question: Question) -> Reply:
    """The answer up to its first stop or its largest length."""
    found = [(reply.text.find(stop), stop) for stop in question.stops if stop in reply.text]
    if found:
        at, stop = min(found)
        return Reply(reply.text[:at], ending="stop_sequence", stop=stop, thought=reply.thought)
    if 0 < question.max_words < len(reply.words):
        text = "".join(reply.words[: question.max_words])
        return Reply(text, ending="length", thought=reply.thought)
    return reply
