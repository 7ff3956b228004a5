"""Values of the store model that are more than a text: hashes, sets, sorted sets and streams."""

from __future__ import annotations

from dataclasses import dataclass, field

EntryId = tuple[int, int]
"""Milliseconds and a number; what a stream orders its entries by."""


class StoreError(Exception):
    """What the store answers with an error, such as `WRONGTYPE …`."""


class Status(str):
    """A short answer such as OK, which is not the text of a value."""


OK = Status("OK")


class Hash(dict[str, str]):
    """Texts by field."""


class Members(dict[str, None]):
    """A set, in the order in which members came."""


class Scores(dict[str, float]):
    """A sorted set: scores by member."""

    def ranked(self) -> list[str]:
        """Members by score, and by name where scores are equal."""
        return [name for _, name in sorted((score, name) for name, score in self.items())]

    def shown(self, names: list[str], options: tuple[str, ...]) -> list[str]:
        """Members as a command answers them: with their scores where WITHSCORES is said."""
        if not options:
            return names
        return [part for name in names for part in (name, format(self[name], ".17g"))]


@dataclass
class PendingEntry:
    """An entry that a consumer of a group has been given and has not acknowledged."""

    consumer: str
    delivered_ms: int
    deliveries: int = 1


@dataclass
class Group:
    """A consumer group: the last entry that it has been given, and what is not acknowledged."""

    last: EntryId = (0, 0)
    pending: dict[EntryId, PendingEntry] = field(default_factory=dict)


@dataclass
class Stream:
    """Entries by id in their order, and the groups that read them."""

    entries: dict[EntryId, list[str]] = field(default_factory=dict)
    last: EntryId = (0, 0)
    groups: dict[str, Group] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, now_ms: int, fields: list[str]) -> EntryId:
        """Append an entry; returns its id."""
        ms, number = self.last
        self.last = (now_ms, 0) if now_ms > ms else (ms, number + 1)
        self.entries[self.last] = fields
        return self.last

    def trim(self, kept: int) -> None:
        """Keep only the newest entries."""
        for entry in list(self.entries)[: max(len(self.entries) - kept, 0)]:
            del self.entries[entry]

    def after(self, last: EntryId, count: int | None) -> list[EntryId]:
        """Ids of at most `count` entries after one."""
        return [entry for entry in self.entries if entry > last][:count]


def id_text(entry: EntryId) -> str:
    """An id as it is written."""
    return f"{entry[0]}-{entry[1]}"


def parse_id(text: str, *, is_end: bool = False) -> EntryId:
    """The id of a text, also `-`, `+`, and one without a number: the first or last of its time."""
    if text == "-":
        return (0, 0)
    if text == "+":
        return (2**63, 0)
    ms, _, number = text.partition("-")
    return (int(ms), int(number) if number else 2**63 if is_end else 0)
