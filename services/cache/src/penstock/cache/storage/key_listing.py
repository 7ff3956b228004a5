"""The keys of all entries, page by page, then those of new entries.

A cursor holds the caller's position, so that any replica can serve the next page and none has to
remember callers.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.storage.entry_store import EntryStore
from penstock.rpc.errors import invalid
from penstock.service.store_connections import READ_WAIT_MS
from penstock.tasks.answer_keys import FINGERPRINT_BYTES

SCAN = "scan"
FOLLOW = "follow"
MAX_DIGITS = 20
"""Of a number in a cursor: Redis's cursors and stream ids are 64-bit numbers."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a caller is: scanning all keys from a Redis cursor, or following the stream of new
    entries after a batch. Empty `batch_id`: the position in the stream is not taken yet.
    """

    phase: str = SCAN
    scan_cursor: int = 0
    batch_id: str = ""

    def __str__(self) -> str:
        return f"{self.phase}:{self.scan_cursor}:{self.batch_id}"


async def list_keys(entries: EntryStore, salt: bytes, cursor: str) -> pb.ListKeysResponse:
    """The page at a cursor; the empty one is the first.

    All keys come first, then the keys of entries stored since the first page.

    Raises:
        Fault: INVALID_ARGUMENT for a cursor that ListKeys has not given.
    """
    position = _position(cursor)
    if position.phase == SCAN:
        position, keys = await _scan(entries, position)
    else:
        batch_id, keys = await entries.new_entries.keys_after(position.batch_id, READ_WAIT_MS)
        position = Position(FOLLOW, 0, batch_id)
    return pb.ListKeysResponse(
        salt=salt,
        fingerprints=b"".join(key[:FINGERPRINT_BYTES] for key in keys),
        cursor=str(position),
        complete=position.phase == FOLLOW,
    )


async def _scan(entries: EntryStore, position: Position) -> tuple[Position, list[bytes]]:
    # The position in the stream is taken before the first scan, so that no new entry is missed.
    batch_id = position.batch_id or await entries.new_entries.last_id()
    scan_cursor, keys = await entries.scan_keys(position.scan_cursor)
    return Position(SCAN if scan_cursor else FOLLOW, scan_cursor, batch_id), keys


def _position(cursor: str) -> Position:
    if not cursor:
        return Position()
    phase, _, rest = cursor.partition(":")
    scan_cursor, _, batch_id = rest.partition(":")
    numbers = [scan_cursor, *batch_id.split("-")]
    are_numbers = all(number.isdecimal() and len(number) <= MAX_DIGITS for number in numbers)
    if phase not in (SCAN, FOLLOW) or len(numbers) != 3 or not are_numbers:
        raise invalid("cursor", "is not one that ListKeys has given; begin with an empty one")
    return Position(phase, int(scan_cursor), batch_id)
