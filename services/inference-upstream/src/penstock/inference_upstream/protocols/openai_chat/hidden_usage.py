"""A stream's bytes without the event that tells nothing but its usage, for a caller who has not
asked for it. Pure but for the bytes that it holds.

Whole events are passed on as they came. The first bytes of an event wait for its end, since only
then is known which it is.
"""

from __future__ import annotations

import re

from penstock.inference_upstream.protocols.event_stream import EventStream
from penstock.inference_upstream.protocols.json_values import parse_object
from penstock.rpc.errors import Fault
from penstock.service.purity import pure

END = re.compile(rb"\r?\n\r?\n|\r\r")
"""A blank line."""
END_OF_BARE = re.compile(rb"\r?\n")
"""Of an event that is a bare JSON object on a line of its own."""
LONGEST_END = 4
NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class HiddenUsage:
    """Feed it the pieces of a body; it gives the bytes that go on."""

    def __init__(self) -> None:
        self._held = b""
        self._searched = 0

    def feed(self, piece: bytes) -> bytes:
        """The bytes of all events that this piece completes, but those that only tell the usage."""
        held = self._held + piece
        passed, start = [], 0
        while (end := _end_of_event(held, start, self._searched)) is not None:
            event, start = held[start:end], end
            if not tells_only_usage(event):
                passed.append(event)
        self._held = held[start:]
        self._searched = max(0, len(self._held) - LONGEST_END)
        return b"".join(passed)

    def end(self) -> bytes:
        """What is left at the body's end."""
        held, self._held = self._held, b""
        return b"" if tells_only_usage(held) else held


def _end_of_event(held: bytes, start: int, searched: int) -> int | None:
    """Where the event that begins at `start` ends; None where that has not come. No end lies in the
    first `searched` bytes.
    """
    ending = END_OF_BARE if held.startswith(b"{", start) else END
    found = ending.search(held, max(start, searched))
    return found.end() if found is not None else None


@pure
def tells_only_usage(event: bytes) -> bool:
    """Whether an event, as bytes, is the chunk of Chat Completions that has no choices and tells
    the usage.
    """
    if NO_CHOICES.search(event) is None:
        return False
    events = EventStream().feed(event + b"\n\n")
    try:
        chunk = parse_object(events[0][0]) if len(events) == 1 else {}
    except Fault:
        return False
    has_usage = isinstance(chunk.get("usage"), dict)
    return has_usage and chunk.get("choices") == [] and not chunk.get("error")
