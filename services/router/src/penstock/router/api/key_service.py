"""The operators' service of API keys: make, list, rotate, revoke, and who did so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from penstock.api.router.v1 import keys_pb2 as pb
from penstock.router.identity.key_records import (
    KeyRecord,
    is_ended,
    keyed_hash,
    new_id,
    new_text,
)
from penstock.router.identity.key_store import KeyStore, required
from penstock.rpc.call import NORMAL, Call
from penstock.rpc.errors import failed_precondition, invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock, unix_ms
from penstock.service.work_stream import LOST
from penstock.tasks.kinds import NAMES

MAX_NAME_BYTES = 128
MAX_NOTE_BYTES = 256
MAX_NAMES = 64
MAX_TAGS = 32
MAX_TTL_MS = 10 * 366 * 24 * 3_600_000
MAX_OVERLAP_MS = 30 * 24 * 3_600_000
DEFAULT_CHANGES, MAX_CHANGES_LISTED = 100, 10_000
PRIORITIES = frozenset(range(5))


class KeyServicer:
    """penstock.api.router.v1.KeyService.

    Args:
        secret: under which keys are hashed, as configured; empty: the store's.
    """

    def __init__(self, store: KeyStore, clock: Clock, secret: str = "") -> None:
        self._store = store
        self._clock = clock
        self._secret = secret

    async def CreateKey(self, request: pb.CreateKeyRequest, call: Call) -> pb.CreateKeyResponse:
        check_scope(request.scope)
        _check_text("note", request.note, MAX_NOTE_BYTES)
        if not 0 <= request.ttl_ms <= MAX_TTL_MS:
            raise invalid("ttl_ms", f"must lie between 0 and {MAX_TTL_MS}")
        now = unix_ms(self._clock)
        key = pb.Key(id=new_id(), scope=request.scope, note=request.note, created_unix_ms=now)
        if not key.scope.priority_ceiling:
            key.scope.priority_ceiling = NORMAL  # type: ignore[assignment]  # a number of it
        key.expires_unix_ms = now + request.ttl_ms if request.ttl_ms else 0
        text = new_text(key.id)
        with _store_faults():
            record = KeyRecord(key, await self._hash(text))
            entry = _entry(call, "CreateKey", key.id, request.note)
            await self._store.make_room(now)
            await self._store.change(key.id, lambda _: record, entry)
        return pb.CreateKeyResponse(key=key, secret=text)

    async def ListKeys(self, request: pb.ListKeysRequest, call: Call) -> pb.ListKeysResponse:
        now = unix_ms(self._clock)
        with _store_faults():
            _, records = await self._store.read()
        keys = [
            record.key
            for record in records.values()
            if request.organisation in ("", record.key.scope.organisation)
            and (request.include_ended or not is_ended(record.key, now))
        ]
        keys.sort(key=lambda key: (key.scope.organisation, key.created_unix_ms, key.id))
        return pb.ListKeysResponse(keys=keys)

    async def RotateKey(self, request: pb.RotateKeyRequest, call: Call) -> pb.RotateKeyResponse:
        _check_text("reason", request.reason, MAX_NOTE_BYTES)
        if not 0 <= request.overlap_ms <= MAX_OVERLAP_MS:
            raise invalid("overlap_ms", f"must lie between 0 and {MAX_OVERLAP_MS}")
        text, now = new_text(request.id), unix_ms(self._clock)
        with _store_faults():
            new_hash = await self._hash(text)

            def rotated(before: KeyRecord | None) -> KeyRecord:
                known = required(before, request.id)
                if is_ended(known.key, now):
                    raise failed_precondition("id", "the key is revoked or expired; make another")
                key = pb.Key.FromString(known.key.SerializeToString())
                key.overlap_ends_unix_ms = now + request.overlap_ms if request.overlap_ms else 0
                return KeyRecord(key, new_hash, known.current_hash if request.overlap_ms else b"")

            entry = _entry(call, "RotateKey", request.id, request.reason)
            record = await self._store.change(request.id, rotated, entry)
        return pb.RotateKeyResponse(key=record.key, secret=text)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, call: Call) -> pb.RevokeKeyResponse:
        _check_text("reason", request.reason, MAX_NOTE_BYTES)
        now = unix_ms(self._clock)

        def revoked(before: KeyRecord | None) -> KeyRecord:
            known = required(before, request.id)
            key = pb.Key.FromString(known.key.SerializeToString())
            key.revoked_unix_ms = key.revoked_unix_ms or now
            key.overlap_ends_unix_ms = 0
            return KeyRecord(key, known.current_hash)

        with _store_faults():
            entry = _entry(call, "RevokeKey", request.id, request.reason)
            record = await self._store.change(request.id, revoked, entry)
        return pb.RevokeKeyResponse(key=record.key)

    async def ListAudit(self, request: pb.ListAuditRequest, call: Call) -> pb.ListAuditResponse:
        if request.limit > MAX_CHANGES_LISTED:
            raise invalid("limit", f"is more than {MAX_CHANGES_LISTED}")
        with _store_faults():
            changes = await self._store.latest_changes(request.limit or DEFAULT_CHANGES)
        return pb.ListAuditResponse(changes=changes)

    async def _hash(self, text: str) -> bytes:
        return keyed_hash(await self._store.secret(self._secret), text)


def check_scope(scope: pb.KeyScope) -> None:
    """Raise INVALID_ARGUMENT for the first thing in a scope that cannot be."""
    if not scope.organisation:
        raise invalid("scope.organisation", "is empty")
    for field in ("organisation", "team", "user"):
        _check_text(f"scope.{field}", getattr(scope, field), MAX_NAME_BYTES)
    for field, most in (("tags", MAX_TAGS), ("models", MAX_NAMES)):
        names = getattr(scope, field)
        if len(names) > most:
            raise invalid(f"scope.{field}", f"has more than {most} names")
        for index, name in enumerate(names):
            if not name:
                raise invalid(f"scope.{field}[{index}]", "is empty")
            _check_text(f"scope.{field}[{index}]", name, MAX_NAME_BYTES)
    for index, number in enumerate(scope.tasks):
        if number not in NAMES:
            raise invalid(f"scope.tasks[{index}]", f"{number} is not a kind of task")
    if scope.priority_ceiling not in PRIORITIES:
        raise invalid("scope.priority_ceiling", f"{scope.priority_ceiling} is not a priority")


def _check_text(field: str, text: str, max_bytes: int) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise invalid(field, f"is longer than {max_bytes} bytes")
    if not text.isprintable():
        raise invalid(field, "has control characters")


def _entry(call: Call, action: str, key_id: str, reason: str) -> pb.KeyChange:
    return pb.KeyChange(operator=call.principal.user, action=action, key_id=key_id, reason=reason)


@contextlib.contextmanager
def _store_faults() -> Iterator[None]:
    try:
        yield
    except LOST:
        raise unavailable(
            "keys need the store, and it does not answer", retry_after_s=1.0, reason=Reason.NO_STORE
        ) from None
