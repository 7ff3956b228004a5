"""The part of the router's assembly that is about credentials: the operators' port for API keys,
what follows the store and the issuers of tokens, and what a changed file puts in force.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import redis.asyncio
from penstock.api.router.v1 import keys_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.service import Port
from penstock.router.api.key_service import KeyServicer
from penstock.router.identity.key_store import KeyStore
from penstock.router.key_following import KeyFollower
from penstock.router.keys import KeyRing
from penstock.router.settings import KeysSection, RouterSettings
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.open_calls import OpenCalls
from penstock.rpc.operators import operator_authenticator, operators_by_secret
from penstock.service.clock import Clock, next_tick
from penstock.service.program import CannotStart
from penstock.service.work_stream import LOST

if TYPE_CHECKING:
    from penstock.router.identity.jwt_tokens import TokenVerifier
    from penstock.router.token_issuers import Get

KEYS = keys_pb2.DESCRIPTOR.services_by_name["KeyService"]
EXPIRY_CHECK_S = 0.5
"""How often it is looked whether the key of an open call has expired, while one may expire."""


def verifier_of(settings: RouterSettings, section: KeysSection) -> TokenVerifier | None:
    """What verifies the tokens of the configured issuers; None where there are none.

    Raises:
        BadConfig: names every file of keys that cannot be used.
    """
    if not section.tokens:
        return None
    from penstock.router.token_issuers import verifier_of_issuers

    return verifier_of_issuers(settings.config_file, section)


class Credentials:
    """Keeps a key ring as the file, the store and the issuers have it.

    Raises:
        CannotStart: keys are to be served, and there is no store, or no secret in production.
    """

    def __init__(
        self,
        settings: RouterSettings,
        store: redis.asyncio.Redis | None,
        keys: KeyRing,
        section: KeysSection,
        open_calls: OpenCalls,
        clock: Clock,
        get: Get | None = None,
    ) -> None:
        _check(settings, store)
        self._settings = settings
        self._store = KeyStore(store) if store is not None else None
        self._keys = keys
        self._section = section
        self._open_calls = open_calls
        self._clock = clock
        self._get = get
        self._follower: KeyFollower | None = None
        self._issuers_changed = asyncio.Event()
        if self._store is not None:
            secret = settings.keys_secret
            self._follower = KeyFollower(self._store, keys, clock, open_calls.end_refused, secret)

    def ports(self) -> Sequence[Port]:
        """The operators' port, where it is to be served."""
        settings = self._settings
        if not settings.keys_listen or self._store is None:
            return []
        authenticate = operator_authenticator(operators_by_secret(settings.admin_tokens))
        servicer = KeyServicer(self._store, self._clock, settings.keys_secret)
        own = settings.model_copy(update={"listen": settings.keys_listen})
        return [GrpcServer("router-keys", own, [Endpoint(KEYS, servicer, authenticate)])]

    async def read(self) -> None:
        """Read the store before the first call; where it does not answer, its keys are refused
        until it does.
        """
        if self._follower is not None:
            with contextlib.suppress(*LOST):
                await self._follower.read()

    async def follow(self) -> None:
        """Follow the store and the issuers, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_issuers(), name="token issuers")
            if self._follower is not None:
                tasks.create_task(self._follower.run(), name="keys of the store")
            tasks.create_task(self._end_expired(), name="expired keys")

    def prepare(self, section: KeysSection) -> Callable[[], None]:
        """Read what a changed file names; returns what puts it in force. Raises BadConfig."""
        verifier = verifier_of(self._settings, section)

        def apply() -> None:
            self._section = section
            self._keys.replace(section.api, verifier)
            self._issuers_changed.set()
            self._open_calls.end_refused()

        return apply

    async def _follow_issuers(self) -> None:
        while True:
            self._issuers_changed.clear()
            async with asyncio.TaskGroup() as tasks:
                fetching = tasks.create_task(self._fetch_keys(), name="keys of token issuers")
                await self._issuers_changed.wait()
                fetching.cancel()

    async def _fetch_keys(self) -> None:
        if self._keys.tokens is None:
            return
        from penstock.router.token_issuers import follow_issuers

        await follow_issuers(self._keys.tokens, self._section.tokens, self._clock, self._get)

    async def _end_expired(self) -> None:
        while True:
            self._keys.is_changed.clear()
            if not self._keys.may_expire:
                await self._keys.is_changed.wait()
                continue
            await next_tick(self._clock, EXPIRY_CHECK_S)
            self._open_calls.end_refused()


def _check(settings: RouterSettings, store: redis.asyncio.Redis | None) -> None:
    if not settings.keys_listen:
        return
    if store is None:
        raise CannotStart(
            "PENSTOCK_KEYS_LISTEN: keys are kept in the store; set PENSTOCK_LEDGER_URL"
        )
    if not settings.admin_tokens:
        raise CannotStart("PENSTOCK_KEYS_LISTEN needs operators: set PENSTOCK_ADMIN_TOKENS")
    if settings.profile == "production" and not settings.keys_secret:
        raise CannotStart(
            "PENSTOCK_KEYS_SECRET: in the production profile, set the secret under which keys are "
            "hashed, of 32 random characters or more"
        )
