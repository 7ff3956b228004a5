"""The latest receipts, for those who got their answers.

The process that gave a receipt has it at once. The store has it a moment later, for every edge of
the deployment: receipts are gathered and saved behind the answers. Where that fails they are lost
but here, for a receipt is a copy of what is in the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging

from google.protobuf.json_format import MessageToDict
from penstock.api.common.v1 import common_pb2
from penstock.edge.json_fields import Json
from penstock.edge.receipt_store import Batch, ReceiptStore
from penstock.rpc.errors import unavailable
from penstock.rpc.reasons import Reason
from penstock.service.bounded_map import BoundedMap
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
SAVE_AFTER_S = 0.1
"""Time in which receipts gather."""
MAX_WAITING = 10_000
"""Receipts that wait to be saved; further ones are not."""
SAVE_S = 5.0
"""Longest time that a save may take."""


class Receipts:
    """Receipts by key and identifier: nobody sees those of another key.

    Args:
        most: receipts that this process keeps.
        store: shared by all edges; None where there is none.
    """

    def __init__(self, most: int, store: ReceiptStore | None = None) -> None:
        self._kept: BoundedMap[tuple[str, str], bytes] = BoundedMap(most)
        self._store = store
        self._waiting: dict[str, Batch] = {}
        self._count = 0
        self._saving: asyncio.Task[None] | None = None

    def keep(self, key: str, receipt: common_pb2.Receipt) -> None:
        """Keep a receipt of a key's call."""
        caller, packed = _digest(key), receipt.SerializeToString()
        self._kept.put((caller, receipt.request_id), packed)
        if self._store is None or self._count >= MAX_WAITING:
            return
        self._waiting.setdefault(caller, {})[receipt.request_id] = packed
        self._count += 1
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save_later(self._store))

    async def _save_later(self, store: ReceiptStore) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(SAVE_AFTER_S)
                await self._save(store)
        finally:
            self._saving = None

    async def _save(self, store: ReceiptStore) -> None:
        waiting, count = self._waiting, self._count
        self._waiting, self._count = {}, 0
        try:
            async with asyncio.timeout(SAVE_S):
                for caller, batch in waiting.items():
                    await store.save(caller, batch)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("up to %d receipts are kept by this process only: %s", count, error)

    async def find(self, key: str, request_id: str) -> Json | None:
        """A receipt as JSON; None where this key has none of that identifier.

        Raises:
            Fault: STORE_UNAVAILABLE.
        """
        caller = _digest(key)
        packed = self._kept.get((caller, request_id))
        if packed is None and self._store is not None:
            packed = await _found(self._store, caller, request_id)
        if packed is None:
            return None
        receipt = common_pb2.Receipt.FromString(packed)
        return MessageToDict(receipt, preserving_proto_field_name=True)

    async def close(self) -> None:
        """Save what waits, for as long as a save may take."""
        if self._saving is not None:
            await asyncio.wait((self._saving,), timeout=SAVE_AFTER_S + SAVE_S)
        if self._saving is not None:
            self._saving.cancel()


async def _found(store: ReceiptStore, caller: str, request_id: str) -> bytes | None:
    try:
        return await store.find(caller, request_id)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("the store of receipts does not answer: %s", error)
    message = "the store of receipts does not answer; ask again later"
    raise unavailable(message, reason=Reason.STORE_UNAVAILABLE)


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
