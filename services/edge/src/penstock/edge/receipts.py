"""The latest receipts, for those who got their answers."""

from __future__ import annotations

import hashlib

from google.protobuf.json_format import MessageToDict
from penstock.api.common.v1 import common_pb2
from penstock.edge.json_fields import Json
from penstock.service.bounded_map import BoundedMap


class Receipts:
    """Receipts by key and identifier: nobody sees those of another key."""

    def __init__(self, most: int) -> None:
        self._kept: BoundedMap[tuple[bytes, str], bytes] = BoundedMap(most)

    def keep(self, key: str, receipt: common_pb2.Receipt) -> None:
        """Keep a receipt of a key's call."""
        self._kept.put((_digest(key), receipt.request_id), receipt.SerializeToString())

    def find(self, key: str, request_id: str) -> Json | None:
        """A receipt as JSON; None where this key has none of that identifier."""
        packed = self._kept.get((_digest(key), request_id))
        if packed is None:
            return None
        receipt = common_pb2.Receipt.FromString(packed)
        return MessageToDict(receipt, preserving_proto_field_name=True)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
