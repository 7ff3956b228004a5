"""What is kept, told page by page: a cursor says where a caller is, so that any replica can go on
and none remembers callers.
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.storage.entry_store import EntryStore
from penstock.rpc.errors import invalid
from penstock.tasks.answer_keys import FINGERPRINT_BYTES

WAIT_MS = 1000
SCAN, FOLLOW = "scan", "follow"


async def list_keys(entries: EntryStore, salt: bytes, cursor: str) -> pb.ListKeysResponse:
    """The next page: first all keys, then those kept since the first page was asked for.

    Raises INVALID_ARGUMENT for a strange cursor.
    """
    phase, scanned, at = _read(cursor)
    if phase == SCAN:
        at = at or await entries.newest_kept()
        after, keys = await entries.scan(scanned)
        phase = SCAN if after else FOLLOW
    else:
        after, (at, keys) = 0, await entries.kept_after(at, WAIT_MS)
    return pb.ListKeysResponse(
        salt=salt,
        fingerprints=b"".join(key[:FINGERPRINT_BYTES] for key in keys),
        cursor=f"{phase}:{after}:{at}",
        complete=phase == FOLLOW,
    )


def _read(cursor: str) -> tuple[str, int, str]:
    if not cursor:
        return SCAN, 0, ""
    phase, _, rest = cursor.partition(":")
    scanned, _, at = rest.partition(":")
    numbers = [scanned, *at.split("-")]
    if (
        phase not in (SCAN, FOLLOW)
        or len(numbers) != 3
        or not all(one.isdecimal() and len(one) < 21 for one in numbers)
    ):
        raise invalid("cursor", "is not one that ListKeys has given")
    return phase, int(scanned), at
