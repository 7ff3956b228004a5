"""The stream commands of the store model, with consumer groups."""

from __future__ import annotations

from typing import Any

from penstock.simulation.store_values import (
    OK,
    EntryId,
    Group,
    PendingEntry,
    StoreError,
    Stream,
    id_text,
    parse_id,
)


class StreamCommands:
    """Streams of a store; what is mixed in has `now_ms`, and finds values by key."""

    now_ms: int
    entries_added = 0
    """Entries that were added to any stream."""

    def _read(self, key: str, kind: type[Any]) -> Any:
        raise NotImplementedError

    def _edit(self, key: str, kind: type[Any]) -> Any:
        raise NotImplementedError

    def _xadd(self, key: str, *parts: str) -> str:
        stream: Stream = self._edit(key, Stream)
        at = parts.index("*")
        entry = stream.add(self.now_ms, list(parts[at + 1 :]))
        self.entries_added += 1
        if at:
            stream.trim(int(parts[at - 1]))
        return id_text(entry)

    def _xlen(self, key: str) -> int:
        return len(self._read(key, Stream))

    def _xdel(self, key: str, *entries: str) -> int:
        stream: Stream = self._read(key, Stream)
        return sum(stream.entries.pop(parse_id(name), None) is not None for name in entries)

    def _xrange(self, key: str, low: str, high: str, *count: str) -> list[Any]:
        stream: Stream = self._read(key, Stream)
        excluded = low.startswith("(")
        first, last = parse_id(low.removeprefix("(")), parse_id(high, is_end=True)
        found = [one for one in stream.entries if first <= one <= last]
        if excluded:
            found = [one for one in found if one != first]
        return _rows(stream, found[: int(count[1]) if count else None])

    def _xrevrange(self, key: str, high: str, low: str, *count: str) -> list[Any]:
        rows = self._xrange(key, low, high)[::-1]
        return rows[: int(count[1]) if count else None]

    def _xread(self, *parts: str) -> list[Any] | None:
        """Without waiting; see the server for BLOCK."""
        keys, ids, count = _streams(parts)
        found = []
        for key, last in zip(keys, ids, strict=True):
            stream: Stream = self._read(key, Stream)
            after = stream.last if last == "$" else parse_id(last)
            if rows := _rows(stream, stream.after(after, count)):
                found.append([key, rows])
        return found or None

    def _xgroup(self, what: str, key: str, name: str, first: str, *_: str) -> str:
        stream: Stream = self._edit(key, Stream)
        if name in stream.groups:
            raise StoreError("BUSYGROUP Consumer Group name already exists")
        stream.groups[name] = Group(stream.last if first == "$" else parse_id(first))
        return OK

    def _xreadgroup(self, *parts: str) -> list[Any] | None:
        """New entries for a consumer, without waiting; see the server for BLOCK."""
        keys, _, count = _streams(parts)
        found = []
        for key in keys:
            stream, group = self._group(key, parts[1])
            given = stream.after(group.last, count)
            for entry in given:
                group.last = entry
                group.pending[entry] = PendingEntry(parts[2], self.now_ms)
            if given:
                found.append([key, _rows(stream, given)])
        return found or None

    def _xack(self, key: str, name: str, *entries: str) -> int:
        group = self._read(key, Stream).groups.get(name, Group())
        return sum(group.pending.pop(parse_id(one), None) is not None for one in entries)

    def _xautoclaim(
        self, key: str, name: str, consumer: str, idle_ms: str, first: str, *options: str
    ) -> list[Any]:
        stream, group = self._group(key, name)
        count = int(options[1]) if options else 100
        claimed: list[EntryId] = []
        gone: list[EntryId] = []
        for entry in sorted(one for one in group.pending if one >= parse_id(first)):
            pending = group.pending[entry]
            if self.now_ms - pending.delivered_ms < int(idle_ms):
                continue
            if len(claimed) == count:
                return [id_text(entry), _rows(stream, claimed), [id_text(one) for one in gone]]
            if entry not in stream.entries:
                del group.pending[entry]
                gone.append(entry)
                continue
            group.pending[entry] = PendingEntry(consumer, self.now_ms, pending.deliveries + 1)
            claimed.append(entry)
        return ["0-0", _rows(stream, claimed), [id_text(one) for one in gone]]

    def _xpending(self, key: str, name: str, low: str, high: str, count: str) -> list[Any]:
        _, group = self._group(key, name)
        return [
            [id_text(entry), one.consumer, self.now_ms - one.delivered_ms, one.deliveries]
            for entry, one in sorted(group.pending.items())
            if parse_id(low) <= entry <= parse_id(high)
        ][: int(count)]

    def _xclaim(self, key: str, name: str, consumer: str, idle_ms: str, *parts: str) -> list[str]:
        """With JUSTID; an entry that is not pending is left as it is."""
        _, group = self._group(key, name)
        entries = [parse_id(part) for part in parts if part != "JUSTID"]
        for entry in entries:
            if entry in group.pending:
                deliveries = group.pending[entry].deliveries
                group.pending[entry] = PendingEntry(consumer, self.now_ms, deliveries)
        return [id_text(entry) for entry in entries if entry in group.pending]

    def _group(self, key: str, name: str) -> tuple[Stream, Group]:
        stream: Stream = self._read(key, Stream)
        if name not in stream.groups:
            raise StoreError(f"NOGROUP No such key '{key}' or consumer group '{name}'")
        return stream, stream.groups[name]


def block_ms(name: str, arguments: tuple[str, ...]) -> int | None:
    """How long a command may wait for entries; None for one that does not wait."""
    if name.upper() not in ("XREAD", "XREADGROUP"):
        return None
    upper = [part.upper() for part in arguments[: arguments.index("STREAMS")]]
    return int(arguments[upper.index("BLOCK") + 1]) if "BLOCK" in upper else None


def _streams(parts: tuple[str, ...]) -> tuple[list[str], list[str], int | None]:
    at = parts.index("STREAMS")
    names = parts[at + 1 :]
    count = int(parts[parts.index("COUNT") + 1]) if "COUNT" in parts[:at] else None
    return list(names[: len(names) // 2]), list(names[len(names) // 2 :]), count


def _rows(stream: Stream, entries: list[EntryId]) -> list[Any]:
    return [[id_text(one), list(stream.entries[one])] for one in entries if one in stream.entries]
