"""Requests in parts: what exceeds a message travels as several, and is put together where it is
served.

Only services send such requests; of others, one message is all that a server takes. Parts of a
request on an item stream go between the items of others, so that a large one holds nobody up for
longer than a part takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from penstock.api.common.v1 import common_pb2
from penstock.rpc.caller_limits import CallerShare
from penstock.rpc.dispatch import FRAME_BYTES, MAX_REQUEST_BYTES, ONE_MESSAGE_BYTES, check_fits
from penstock.rpc.errors import invalid

PART_BYTES = FRAME_BYTES
REQUEST_BYTES_KEY = "penstock-request-bytes"
"""Metadata of a plain call whose request comes in several messages: the bytes of all of them."""


def check_share(request_bytes: int, share: CallerShare) -> None:
    """Refuse a request before its parts have come.

    Raises:
        Fault: INVALID_ARGUMENT where it is too large for its caller.
    """
    check_fits(request_bytes, MAX_REQUEST_BYTES if share.takes_parts else ONE_MESSAGE_BYTES)


async def parts_of(payload: bytes) -> AsyncIterator[bytes]:
    """A request's parts, in order."""
    for start in range(0, len(payload), PART_BYTES):
        yield payload[start : start + PART_BYTES]


def declared_bytes(metadata: Mapping[str, str | bytes]) -> int:
    """The bytes of a plain call's request where it comes in several messages; 0 where it does not.

    Raises:
        Fault: INVALID_ARGUMENT.
    """
    said = metadata.get(REQUEST_BYTES_KEY, "0")
    if not isinstance(said, str) or not said.isdecimal() or len(said) > 12:
        raise invalid(REQUEST_BYTES_KEY, "is no number of bytes")
    return int(said)


async def rest_of(first: bytes, total: int, read: Callable[[], Awaitable[object]]) -> bytes:
    """A plain call's whole request, from its first message on.

    Raises:
        Fault: INVALID_ARGUMENT where it has another number of bytes than was declared.
    """
    parts, size = [first], len(first)
    while size < total:
        part = await read()
        if not isinstance(part, bytes):
            break
        parts.append(part)
        size += len(part)
    if size != total:
        raise invalid(REQUEST_BYTES_KEY, f"says {total}, and {size} bytes came")
    return b"".join(parts)


@dataclass
class _Partial:
    """An item whose request has not come whole."""

    item: common_pb2.Item
    began_s: float
    missing: int
    parts: list[bytes] = field(default_factory=list)


class PartialItems:
    """The items of one stream whose requests have not come whole. Owner: the stream's session; the
    sender is a service, which has as many of them as it has callers.
    """

    def __init__(self) -> None:
        self._items: dict[int, _Partial] = {}

    def begin(self, item: common_pb2.Item, now: float) -> None:
        """Take the first part of an item."""
        partial = _Partial(item, now, item.remaining_bytes, [item.payload])
        item.payload = b""
        self._items[item.id] = partial

    def add(self, part: common_pb2.Item) -> tuple[common_pb2.Item, float] | None:
        """Take a further part: the whole item and the time of its first part, once it is there.
        A part of an item that was refused or cancelled has no effect.

        Raises:
            Fault: INVALID_ARGUMENT where it does not follow the part before.
        """
        partial = self._items.get(part.id)
        if partial is None:
            return None
        partial.missing -= len(part.payload)
        partial.parts.append(part.payload)
        if partial.missing != part.remaining_bytes or not part.payload:
            self.drop(part.id)
            raise invalid("remaining_bytes", "does not follow from the part before")
        if partial.missing:
            return None
        self.drop(part.id)
        item = partial.item
        item.payload = b"".join(partial.parts)
        item.remaining_bytes = 0
        return item, partial.began_s

    def drop(self, item_id: int) -> None:
        """Forget an item; its further parts have no effect."""
        self._items.pop(item_id, None)
