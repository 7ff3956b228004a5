"""Signed tokens (JWT, RFC 7519) beside API keys, verified as RFC 8725 advises: the issuer is one of
the configuration, the algorithm is one that the configuration allows for it and fits the key, and
issuer, audience, subject and times are always checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from penstock.router.identity.grants import Grant, Scope
from penstock.router.identity.jwks import KeySet, PublicKey
from penstock.router.settings import TokenIssuer
from penstock.rpc.call import PRIORITIES, Principal
from penstock.rpc.errors import Fault, unauthenticated
from penstock.service.bounded_map import BoundedMap
from penstock.service.purity import pure
from penstock.tasks.kinds import KINDS

REQUIRED = ("exp", "iat", "iss", "aud", "sub")
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
VERIFIED_KEPT = 16_384
MAX_TAGS = 32
MAX_NAME_CHARACTERS = 128
Claims = Mapping[str, Any]


class TokenVerifier:
    """Verifies the tokens of the configured issuers.

    A verified token is remembered, so an item of a stream costs a look-up; its expiry is checked
    each time, and new keys of any issuer make all be verified again.
    """

    def __init__(self, issuers: Iterable[TokenIssuer], key_sets: Mapping[str, KeySet]) -> None:
        self._issuers = {each.issuer: each for each in issuers}
        self._key_sets = dict(key_sets)
        self._verified: BoundedMap[bytes, Grant] = BoundedMap(VERIFIED_KEPT)

    def replace_keys(self, issuer: str, keys: KeySet) -> None:
        """Put the keys of an issuer in force; what was signed by others is refused from then on."""
        if self._key_sets.get(issuer) != keys:
            self._key_sets[issuer] = keys
            self._verified = BoundedMap(VERIFIED_KEPT)

    def verify(self, token: str, now_unix_s: float) -> Grant:
        """What a token permits.

        Raises:
            Fault: UNAUTHENTICATED.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        grant = self._verified.get(digest)
        if grant is None:
            issuer, claims = self._checked(token)
            if problem := time_problem(issuer, claims, now_unix_s):
                raise unauthenticated(f"the token {problem}; get a new one")
            grant = grant_of_claims(issuer, claims)
            self._verified.put(digest, grant)
        if grant.expires_unix_s <= now_unix_s:
            raise unauthenticated("the token has expired; get a new one")
        return grant

    def _checked(self, token: str) -> tuple[TokenIssuer, Claims]:
        """Who has signed a token, and what it says. One refusal for whatever is wrong with it."""
        try:
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False})
            issuer = self._issuers[str(said.get("iss"))]
            key = self._key_sets.get(issuer.issuer, {})[str(header.get("kid", ""))]
            algorithm = str(header["alg"])
            if algorithm not in issuer.algorithms or not fits(algorithm, key):
                raise KeyError(algorithm)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                options={
                    "require": list(REQUIRED),
                    "verify_exp": False,  # all times are checked against the clock of this service
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError):
            raise _refused() from None
        return issuer, claims


@pure
def fits(algorithm: str, key: PublicKey) -> bool:
    """Whether a key is of the kind that the algorithm signs with."""
    if algorithm.startswith(("RS", "PS")):
        return isinstance(key, rsa.RSAPublicKey)
    if algorithm in CURVES:
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVES[algorithm]
    return algorithm == "EdDSA" and not isinstance(
        key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    )


@pure
def time_problem(issuer: TokenIssuer, claims: Claims, now_unix_s: float) -> str:
    """What is wrong with a token's times; empty when nothing is."""
    times = [claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in times):
        return "has times that are no numbers"
    expires_s, issued_s, valid_from_s = times
    if not now_unix_s - issuer.leeway_s < expires_s:
        return "has expired"
    if not max(issued_s, valid_from_s) <= now_unix_s + issuer.leeway_s:
        return "is not valid yet"
    if not expires_s - issued_s <= issuer.max_age_s:
        return f"is valid for longer than {issuer.max_age_s:g} s"
    return ""


@pure
def grant_of_claims(issuer: TokenIssuer, claims: Claims) -> Grant:
    """What a verified token permits: never more than its issuer's section.

    Raises:
        Fault: UNAUTHENTICATED where a claim cannot be used.
    """
    organisation = issuer.organisation or _name(claims, issuer.organisation_claim)
    user = _name(claims, issuer.user_claim)
    if not organisation or not user:
        raise unauthenticated("the token names no organisation or no user")
    scope = Scope(
        _narrowed(issuer.models, _names(claims, issuer.models_claim)),
        frozenset(_narrowed_kinds(issuer.tasks, _names(claims, issuer.tasks_claim))),
    )
    ceiling = _ceiling(issuer, claims)
    team, tags = _name(claims, issuer.team_claim), _names(claims, issuer.tags_claim)[:MAX_TAGS]
    said = [issuer.issuer, str(claims["sub"]), organisation, team, user, tags, ceiling]
    facts = json.dumps([*said, scope.models, sorted(scope.kinds)])
    key_id = f"jwt:{hashlib.sha256(facts.encode()).hexdigest()[:32]}"
    principal = Principal(organisation, team, user, key_id, tuple(tags))
    return Grant(principal, ceiling, scope, claims["exp"] + issuer.leeway_s)


def _ceiling(issuer: TokenIssuer, claims: Claims) -> int:
    configured = int(PRIORITIES[issuer.priority_ceiling])
    said = claims.get(issuer.priority_claim)
    if said is None:
        return configured
    if said not in PRIORITIES:
        raise unauthenticated(f"the token's claim {issuer.priority_claim} is no priority")
    return min(configured, int(PRIORITIES[said]))


def _name(claims: Claims, claim: str) -> str:
    value = claims.get(claim, "")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        raise unauthenticated(f"the token's claim {claim} is no name")
    return value


def _names(claims: Claims, claim: str) -> list[str]:
    value = claims.get(claim, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise unauthenticated(f"the token's claim {claim} is no list of names")
    return value


def _narrowed(configured: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    """The models that both cover; a token that asks for none of its issuer's gets none."""
    if not said or not configured:
        return tuple(said or configured)
    allowed = Scope(tuple(configured))
    both = tuple(name for name in said if allowed.covers_model(name))
    if not both:
        raise unauthenticated("the token names no model that its issuer may grant")
    return both


def _narrowed_kinds(configured: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    known = [name for name in said if name in KINDS and (not configured or name in configured)]
    if said and not known:
        raise unauthenticated("the token names no kind of task that its issuer may grant")
    return tuple(known or configured)


def _refused() -> Fault:
    return unauthenticated(
        "the token is not accepted; its issuer, audience, algorithm, key or signature is not one "
        "that is configured"
    )
