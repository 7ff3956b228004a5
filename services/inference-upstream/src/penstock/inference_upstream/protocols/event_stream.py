"""Server-sent events (WHATWG HTML, section 9.2.6), whatever pieces they arrive in.

A line ends with LF, CR or CRLF; a blank line ends an event; lines that begin with a colon are
comments; the data lines of an event are joined by LF; a byte order mark at the start is skipped.
Two things go beyond the standard, because providers do them: an event that the body's end cuts off
before its blank line is read all the same, and a line that is a bare JSON object is an event.

Pure: bytes in, events out. Lines are cut as bytes, since a character may be split over two pieces.
"""

from __future__ import annotations

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
KNOWN_FIELDS = (b"event", b"id", b"retry")


Event = tuple[bytes, bytes]
"""One event: its data, and its type, which is empty where the stream gives none. A plain pair,
since one is made for each piece of each answer.
"""


class EventStream:
    """Feed it pieces of a body; each call returns the events that they complete."""

    def __init__(self) -> None:
        self.is_irregular = False
        """True once a line had an unknown field. The standard ignores it; it may as well be data
        whose beginning was damaged.
        """
        self.comments = 0
        """Comments so far; providers send them to keep connections alive."""
        self._pending: list[bytes] = []
        self._after_cr = False
        self._is_at_start = True
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece of the body completes."""
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = piece.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        if lines:
            if self._pending:
                # Joined once the line ends, so that a long line in many pieces is copied once.
                lines[0] = b"".join([*self._pending, lines[0]])
                self._pending = []
            for line in lines:
                if line.startswith(b"data: "):
                    self._data.append(line[6:])
                elif line:
                    self._take_line(line, events)
                elif self._data or self._name:
                    self._dispatch(events)
            self._is_at_start = False
        if rest:
            self._pending.append(rest)
        return events

    def end(self) -> list[Event]:
        """The events that the end of the body completes."""
        events = self.feed(b"\n")
        self._dispatch(events)
        return events

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        """Take a line that is neither blank nor the usual form of data."""
        if self._is_at_start:
            self._is_at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if line.startswith(b"event: "):
            self._name = line[7:]
        elif line.startswith(b":"):
            self.comments += 1
        elif line.startswith(b"{"):
            self._dispatch(events)
            events.append((line, b""))
        elif line:
            self._take_field(line)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name not in KNOWN_FIELDS:
            self.is_irregular = True

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append((b"\n".join(self._data), self._name))
            self._data = []
        self._name = b""
