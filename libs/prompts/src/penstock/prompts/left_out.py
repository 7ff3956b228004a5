"""How many tokens of a prompt shaping has left out.

The usage that a provider reports says how many tokens were sent, and never how many would have been
sent. Both prompts are cut into pieces as the tokenizers of GPT-2 and its successors cut text before
they look for tokens: words, numbers, runs of signs. A difference of pieces is close to a difference
of tokens even where nothing but white space between signs is left out, which bytes say nothing of.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator

from penstock.prompts.conversation import Conversation, TokenCounter

MAX_LINES = 4_096
"""Lines whose pieces are remembered: a conversation brings its tool results again and again."""
LONG_LINE = 64
"""Characters from which on a line is worth remembering."""
_PIECE = re.compile(r" ?[^\W\d_]+| ?\d{1,3}| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


class Pieces:
    """Counts the pieces of texts; a `TokenCounter`. Remembers those of long ones, by digest."""

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self._max_lines = max_lines
        self._known: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, text: str) -> int:
        """The pieces of a text."""
        if len(text) < LONG_LINE:
            return len(_PIECE.findall(text))
        digest = hash(text)
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        pieces = self._known[digest] = len(_PIECE.findall(text))
        if len(self._known) > self._max_lines:
            self._known.popitem(last=False)
        return pieces


def tokens_left_out(before: Conversation, after: Conversation, count: TokenCounter) -> int:
    """The tokens of a prompt that are not sent; negative where some are added.

    Lines that stand elsewhere count nothing, nor does the order or white space of schemas, which
    providers write anew.

    Args:
        before: the prompt as it came.
        after: the same as it is sent.
        count: of lines.
    """
    had, sent = Counter(_changed_lines(before, after)), Counter(_changed_lines(after, before))
    return _total(had - sent, count) - _total(sent - had, count)


def _total(lines: Counter[str], count: TokenCounter) -> int:
    return sum(count(line) * times for line, times in lines.items() if line)


def _changed_lines(conversation: Conversation, other: Conversation) -> Iterator[str]:
    """The lines of the turns and descriptions of a prompt that are not the other's at their
    place.
    """
    others = other.turns
    for place, turn in enumerate(conversation.turns):
        if place >= len(others) or others[place].content != turn.content:
            yield from turn.content.split("\n")
    described = {tool.name: tool.description for tool in other.tools}
    for tool in conversation.tools:
        if described.get(tool.name) != tool.description:
            yield from tool.description.split("\n")
