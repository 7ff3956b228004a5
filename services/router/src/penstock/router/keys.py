"""Credentials at the public port: who a caller is and what it may do.

Credentials of three kinds stand beside each other: keys of the configuration file, keys of the
store, and signed tokens where the file says whose. The texts of keys are never kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.router.identity.grants import Grant, Scope
from penstock.router.identity.key_records import (
    KeyRecord,
    accepts,
    ends_by_itself,
    grant_of,
    id_in,
    is_ended,
    keyed_hash,
)
from penstock.router.settings import KeySection
from penstock.rpc.auth import Metadata
from penstock.rpc.call import PRIORITIES, Call, Principal
from penstock.rpc.errors import Fault, denied, unauthenticated
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock, SystemClock

if TYPE_CHECKING:
    from penstock.router.identity.jwt_tokens import TokenVerifier

HELP = "send metadata `authorization: Bearer KEY`"
TOKENS_KEPT = 16_384
"""Grants of verified tokens that are remembered."""


def digest(key: str) -> str:
    """What the configuration file keeps of a key: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The credentials in force.

    Whoever is accepted is looked up again for each call and each item of a stream, so a key that
    was removed, revoked or has expired ends there. A key that is not there permits nothing.

    Args:
        keys: of the configuration file.
        tokens: verifies signed tokens; None: there are none.
    """

    def __init__(
        self,
        keys: Sequence[KeySection],
        tokens: TokenVerifier | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._blinding = secrets.token_bytes(32)
        self._records: Mapping[str, KeyRecord] = {}
        self._record_secret = b""
        self._record_grants: Mapping[str, Grant] = {}
        self._token_grants: BoundedMap[str, Grant] = BoundedMap(TOKENS_KEPT)
        self.may_expire = False
        """Whether a credential in force ends by itself at some time."""
        self.is_changed = asyncio.Event()
        """Set when other credentials are put in force; whoever waits for that clears it."""
        self.replace(keys, tokens)

    def replace(self, keys: Sequence[KeySection], tokens: TokenVerifier | None = None) -> None:
        """Put what the file says in force."""
        self.tokens = tokens
        """Verifies signed tokens; None: there are none."""
        self._token_grants = BoundedMap(TOKENS_KEPT)
        self._file_grants = {key.id: _grant_of_section(key) for key in keys}
        self._file_ids = {self._blinded(key.sha256): key.id for key in keys}
        self._note_change()

    def replace_records(self, secret: bytes, records: Mapping[str, KeyRecord]) -> None:
        """Put the keys of the store in force.

        Args:
            secret: under which their hashes are made.
        """
        self._record_secret = secret
        self._records = records
        self._record_grants = {name: grant_of(record.key) for name, record in records.items()}
        self._note_change()

    def _note_change(self) -> None:
        self.may_expire = (
            self.tokens is not None
            or any(grant.expires_unix_s < math.inf for grant in self._file_grants.values())
            or any(ends_by_itself(record.key) for record in self._records.values())
        )
        self.is_changed.set()

    def authenticate(self, metadata: Metadata) -> Call:
        """The Call of whoever sent this metadata; whether its traceparent is one is found out where
        the first span begins.

        Raises:
            Fault: UNAUTHENTICATED without a credential in force.
        """
        header = metadata.get("authorization", "")
        scheme, _, text = (header if isinstance(header, str) else "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise unauthenticated(f"no API key; {HELP}")
        grant = self._grant_of_text(text)
        if self._is_over(grant):
            raise _not_in_force()
        parent = metadata.get("traceparent", "")
        return Call(grant.principal, traceparent=parent if isinstance(parent, str) else "")

    def grant(self, principal: Principal) -> Grant:
        """What an authenticated caller may do.

        Raises:
            Fault: UNAUTHENTICATED where its credential is not in force any more.
        """
        name = principal.key_id
        grant = (
            self._file_grants.get(name)
            or self._record_grants.get(name)
            or self._token_grants.peek(name)
        )
        if grant is None or grant.principal != principal or self._is_over(grant):
            raise _not_in_force()
        return grant

    def grant_of_job(self, principal: Principal, priority: int) -> Grant:
        """What the caller of an accepted job may do: a key may have been revoked since; a token's
        scope was checked when the job was submitted, and a token may expire before its job ends.

        Raises:
            Fault: PERMISSION_DENIED where the key is not in force any more.
        """
        if is_token_id(principal.key_id):
            return Grant(principal, priority)
        try:
            return self.grant(principal)
        except Fault as fault:
            raise denied(f"the job's {fault.message}") from None

    def _grant_of_text(self, text: str) -> Grant:
        key_id = id_in(text)
        if key_id is not None:
            return self._grant_of_record(key_id, text)
        if is_token(text) and self.tokens is not None:
            return self._grant_of_token(text)
        name = self._file_ids.get(self._blinded(digest(text)))
        if name is None:
            raise unauthenticated(f"the API key is not known; {HELP}")
        return self._file_grants[name]

    def _grant_of_record(self, key_id: str, text: str) -> Grant:
        record = self._records.get(key_id)
        given = keyed_hash(self._record_secret, text)
        if not accepts(record, given, self._clock.time() * 1e3):
            raise _not_in_force()
        return self._record_grants[key_id]

    def _grant_of_token(self, text: str) -> Grant:
        assert self.tokens is not None
        grant = self.tokens.verify(text, self._clock.time())
        self._token_grants.put(grant.principal.key_id, grant)
        return grant

    def _is_over(self, grant: Grant) -> bool:
        record = self._records.get(grant.principal.key_id)
        now_s = self._clock.time()
        if record is not None and is_ended(record.key, now_s * 1e3):
            return True
        return grant.expires_unix_s <= now_s

    def _blinded(self, sha256: str) -> bytes:
        """A digest under a secret of this process: what a look-up's time tells of it is nothing
        that a caller could use.
        """
        return keyed_hash(self._blinding, sha256)


def is_token(text: str) -> bool:
    """Whether a credential has the form of a signed token."""
    return text.count(".") == 2


def is_token_id(key_id: str) -> bool:
    """Whether a principal came by a signed token."""
    return key_id.startswith("jwt:")


def _not_in_force() -> Fault:
    return unauthenticated(f"API key is not known, is revoked or has expired; {HELP}")


def _grant_of_section(key: KeySection) -> Grant:
    who = Principal(key.organisation, key.team, key.user, key.id, key.tags)
    scope = Scope(key.models, frozenset(key.tasks))
    ceiling = int(PRIORITIES[key.priority_ceiling])
    return Grant(who, ceiling, scope, key.expires_unix_s, key.shows_addresses)
