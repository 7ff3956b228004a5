"""Who calls an internal port, and the context that comes with the call.

A caller is known by the names of its certificate, or by a proof that it holds the secret which it
shares with the callee:

    caller|audience|HMAC-SHA256(secret, caller|audience)

The audience is the callee's name, and for an instance its address as well: whoever registers an
address gets proofs that are good for nothing but calling that address. Operators send their secret
as it is, to addresses that they configure.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Self

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.callers import INSTANCE, OPERATOR, SERVED_BY, callers_of
from penstock.rpc.errors import Fault, denied, invalid, unauthenticated
from penstock.service.clock import Clock, SystemClock
from penstock.service.service_tokens import SharedToken, Tokens

TOKEN_KEY = "penstock-token"
CONTEXT_KEY = "penstock-context-bin"
CREDENTIALS = ("authorization", TOKEN_KEY, CONTEXT_KEY)
"""Metadata that says who calls."""
NO_NAMES: frozenset[str] = frozenset()


class CallerMetadata(dict[str, str | bytes]):
    """What came with a call; `names` are those of the caller's certificate, which was verified.

    They come from the connection and never from what the caller sent.
    """

    names: frozenset[str] = NO_NAMES

    @classmethod
    def received(
        cls, sent: Iterable[tuple[str, str | bytes]], names: frozenset[str] = NO_NAMES
    ) -> Self:
        """What came with a call over a wire, over which a name may come more than once.

        Raises:
            Fault: UNAUTHENTICATED where it names two callers: parts on the way could disagree on
                which.
        """
        pairs = tuple(sent)
        said = [name for name, _ in pairs if name in CREDENTIALS]
        if len(said) > len({*said}):
            raise unauthenticated("a credential was sent twice; send one")
        metadata = cls(pairs)
        metadata.names = names
        return metadata

    def credentials(self) -> tuple[object, ...]:
        """All of it that says who calls; equal for callers that are accepted or refused alike."""
        return (self.names, *(self.get(name) for name in CREDENTIALS))


Metadata = Mapping[str, str | bytes]
Authenticator = Callable[[CallerMetadata], Call | Awaitable[Call]]
"""Makes the Call of whoever sent this metadata, or raises UNAUTHENTICATED."""
Audience = Callable[[], str]
"""The address at which an instance is registered; empty where it is not yet known."""


def proof(secret: str, caller: str, audience: str) -> str:
    """What a caller sends to an audience to prove that it holds the secret."""
    return f"{caller}|{audience}|{_mac(secret, caller, audience)}"


def audience_of(rpc_service: str, address: str) -> str:
    """Whom a proof is for: a service by its name, an instance by its address too."""
    callee = SERVED_BY.get(rpc_service, rpc_service)
    return f"{callee}@{address}" if callee == INSTANCE else callee


def service_of(metadata: CallerMetadata, tokens: Tokens, callee: ServiceDescriptor) -> str:
    """The service of ours that calls, by its certificate or its proof, beside whatever says for
    whom; empty for others.
    """
    given = metadata.get(TOKEN_KEY, "")
    if not given:
        return next(iter(sorted(metadata.names)), "")
    try:
        caller = _caller_by_token(metadata, tokens, audience_of(callee.full_name, ""))
    except Fault:
        return ""
    return caller if caller != OPERATOR else ""


def internal(token: str, clock: Clock | None = None) -> Authenticator:
    """An authenticator for callers that hold one token, compared in constant time; the context that
    comes with the call is believed.
    """
    tokens, own_clock = SharedToken(token), clock or SystemClock()

    def authenticate(metadata: CallerMetadata) -> Call:
        _caller_by_token(metadata, tokens, None)
        return _call_of(metadata, own_clock)

    return authenticate


def services_only(
    service: ServiceDescriptor,
    tokens: Tokens,
    clock: Clock | None = None,
    address: Audience | None = None,
) -> Authenticator:
    """An authenticator for the services that may call this one; the context that comes with the
    call is believed.

    Args:
        service: what is called.
        tokens: the secrets by which callers without certificates are known.
        address: where an instance is registered; a proof for another address is refused.
    """
    allowed, own_clock = callers_of(service.full_name), clock or SystemClock()

    def authenticate(metadata: CallerMetadata) -> Call:
        known = allowed & metadata.names
        if known:
            caller = min(known)
        elif metadata.names and TOKEN_KEY not in metadata:
            raise _not_allowed(metadata.names, allowed)
        else:
            expected = audience_of(service.full_name, address() if address is not None else "")
            caller = _caller_by_token(metadata, tokens, expected)
            if caller not in allowed:
                raise _not_allowed({caller}, allowed)
        return _call_of(metadata, own_clock, caller)

    return authenticate


def _not_allowed(names: frozenset[str] | set[str], allowed: frozenset[str]) -> Exception:
    return denied(
        f"{', '.join(sorted(names))} may not call this service; {', '.join(sorted(allowed))} may"
    )


def _caller_by_token(metadata: Metadata, tokens: Tokens, expected: str | None) -> str:
    """The caller that the token names.

    Args:
        expected: the audience that a proof must have; None or one without an address: any address.

    Raises:
        Fault: UNAUTHENTICATED.
    """
    given = metadata.get(TOKEN_KEY, "")
    text = given.decode("ascii", "replace") if isinstance(given, bytes) else given
    if text.count("|") == 2:
        caller, audience, mac = text.split("|")
        if _is_meant(audience, expected):
            wanted = [_mac(secret, caller, audience) for secret in tokens.accepted_from(caller)]
            if _is_any(mac, wanted):
                return caller
    elif _is_any(text, tokens.operators()):
        return OPERATOR
    raise unauthenticated(
        "this port is internal; it needs the certificate or the token of a service that may call it"
    )


def _is_meant(audience: str, audience_here: str | None) -> bool:
    if audience_here is None:
        return True
    if audience_here.endswith("@"):  # the address is not known: of the kind will do
        return audience.startswith(audience_here)
    return audience == audience_here


def _is_any(given: str, expected: tuple[str, ...] | list[str]) -> bool:
    """Whether it is one of them; the time tells nothing of where they differ."""
    matches = [hmac.compare_digest(given.encode(), each.encode()) for each in expected]
    return any(matches)


@functools.lru_cache(maxsize=1024)
def _mac(secret: str, caller: str, audience: str) -> str:
    """Made once: the same few callers prove the same with each call, and a MAC takes longer than
    all else of a small call's authentication.
    """
    return hmac.digest(secret.encode(), f"{caller}|{audience}".encode(), "sha256").hex()


def _call_of(metadata: Metadata, clock: Clock, caller: str = "") -> Call:
    """The call that a service makes, with the context that came with it, if one did."""
    packed = metadata.get(CONTEXT_KEY)
    if packed is None:
        return Call(caller=caller)
    try:
        context = common_pb2.CallContext.FromString(
            packed if isinstance(packed, bytes) else packed.encode()
        )
    except DecodeError:
        raise invalid(CONTEXT_KEY, "is not a CallContext") from None
    return Call.from_context(context, clock.monotonic())._replace(caller=caller)
