"""Which lines of an agent's instructions change from prompt to prompt, whatever their form.

A rule that matches forms (`prefix.py`) knows a clock when it reads `Current time: …`. Here nothing
is known of forms: a line changes where the words stay and what stands between them (numbers, times,
identifiers) was another in an earlier prompt of the same agent. So a line is never taken for a
changing one because it is there once and not the next time, nor because other words stand in it.

Once a line has changed, it counts as changing until it was the same for SETTLED prompts. Digests
are kept and no text. Agents are told apart by their owner and the longest line of their
instructions.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.prompts.volatile import masked, values

SETTLED = 8
"""Prompts in a row after which a line that changed once is taken for settled."""
MAX_CHANGING = 12
"""Where more lines change, they are data rather than a head, and stay where they are."""
MAX_AGENTS, MAX_LINES = 512, 256
"""Agents remembered, the least recently used of which leaves, and lines of one: instructions with
more are left alone. An agent of 60 lines takes some 12 KB, one of 256 at most 64 KB.
"""
DIGEST_BYTES = 8
_VALUE_WORD = re.compile(r"[\w.:+-]*\d[\w.:+-]*")
"""A word with a digit in it."""

Place = tuple[bytes, int]
"""A line by its form (its text without its values), and its number among lines of that form."""


class _Line(NamedTuple):
    """What is remembered of a line; `same` counts the prompts since it last changed, None where it
    never has.
    """

    exact: bytes
    same: int | None = None

    @property
    def changes(self) -> bool:
        """Whether it counts as a changing one."""
        return self.same is not None

    def next(self, exact: bytes) -> _Line:
        """The line in the next prompt."""
        if exact != self.exact:
            return _Line(exact, 0)
        if self.same is None or self.same + 1 >= SETTLED:
            return _Line(exact)
        return _Line(exact, self.same + 1)


@dataclass
class ChangingLines:
    """What is remembered of agents' instructions. Not frozen: it learns. Safe to share among
    threads.
    """

    _agents: OrderedDict[tuple[str, bytes], Mapping[Place, _Line]] = field(
        default_factory=OrderedDict
    )
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def find(self, owner: str, lines: Sequence[str]) -> frozenset[int]:
        """The places of the lines that change; these lines are remembered.

        Args:
            owner: whose agent it is; what is learnt of one owner shows in nothing of another's.
            lines: the whole instructions of a prompt.
        """
        if len(lines) > MAX_LINES:
            return frozenset()
        places = _places(lines)
        agent = owner, _form(max(lines, key=len, default=""))
        with self._one_at_a_time:
            known = self._agents.pop(agent, {})
            now = {
                place: known[place].next(exact) if place in known else _Line(exact)
                for place, exact in places
            }
            # A line that is missing this time keeps what is known of it, as far as there is room.
            self._agents[agent] = now if len(known) > MAX_LINES else {**known, **now}
            if len(self._agents) > MAX_AGENTS:
                self._agents.popitem(last=False)
        changing = [number for number, (place, _) in enumerate(places) if now[place].changes]
        return frozenset(changing if len(changing) <= MAX_CHANGING else ())


def _places(lines: Sequence[str]) -> list[tuple[Place, bytes]]:
    """The place and the digest of each line."""
    seen: Counter[bytes] = Counter()
    found = []
    for line in lines:
        form = _form(line)
        found.append(((form, seen[form]), _digest(line)))
        seen[form] += 1
    return found


def _form(line: str) -> bytes:
    """The digest of a line without its values."""
    return _digest(_VALUE_WORD.sub("#", masked(line, tuple(values(line)))))


def _digest(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()
