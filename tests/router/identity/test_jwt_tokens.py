"""Signed tokens: what is accepted, what it permits, and the attacks that RFC 8725 lists."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from penstock.router.identity import jwks
from penstock.router.identity.jwt_tokens import TokenVerifier
from penstock.router.keys import KeyRing
from penstock.router.settings import TokenIssuer
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.clock import FakeClock
from pydantic import ValidationError

ISSUER = "https://issuer.example"
NOW = 1_000_000.0
SIGNER = rsa.generate_private_key(65537, 2048)
STRANGER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, algorithm: Any = jwt.algorithms.RSAAlgorithm) -> dict[str, Any]:
    return {**algorithm.to_jwk(key, as_dict=True), "kid": kid, "use": "sig"}


EC = jwt.algorithms.ECAlgorithm
KEYS = jwks.parse(
    json.dumps(
        {"keys": [jwk(SIGNER.public_key(), "one"), jwk(CURVE.public_key(), "two", EC)]}
    ).encode()
)


def section(**changes: Any) -> TokenIssuer:
    fields = {"issuer": ISSUER, "audience": "penstock", "jwks_file": Path("keys.json")}
    return TokenIssuer(**{**fields, **changes})


def claims(**changes: Any) -> dict[str, Any]:
    said = {
        "iss": ISSUER,
        "aud": "penstock",
        "sub": "ann",
        "organisation": "acme",
        "iat": NOW - 10,
        "exp": NOW + 600,
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def token(key: Any = SIGNER, algorithm: str = "RS256", kid: str = "one", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid})


def verify(text: str, issuer: TokenIssuer | None = None) -> Any:
    return TokenVerifier([issuer or section()], {ISSUER: KEYS}).verify(text, NOW)


def refused(text: str, issuer: TokenIssuer | None = None) -> str:
    with pytest.raises(Fault) as failed:
        verify(text, issuer)
    assert failed.value.reason is Reason.UNAUTHENTICATED
    return failed.value.message


def test_a_token_gives_its_principal_and_scope() -> None:
    grant = verify(token(team="t", tags=["x"], models=["m"], tasks=["embed"]))
    who = grant.principal
    assert (who.organisation, who.team, who.user, who.tags) == ("acme", "t", "ann", ("x",))
    assert who.key_id.startswith("jwt:")
    assert (grant.scope.models, grant.scope.kinds) == (("m",), frozenset(["embed"]))
    assert grant.ceiling == 2


def test_a_key_of_another_kind_is_used_where_it_is_allowed() -> None:
    text = token(CURVE, "ES256", "two")
    assert verify(text, section(algorithms=("ES256",))).principal.user == "ann"
    assert "not accepted" in refused(text)


@pytest.mark.threat("algorithm confusion")
def test_a_token_that_is_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    public = SIGNER.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = _part({"alg": "HS256", "typ": "JWT", "kid": "one"})
    signed = f"{header}.{_part(claims())}"
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    refused(f"{signed}.{_text(mac.sign(signed.encode(), public))}")


@pytest.mark.threat("unsigned token")
@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_a_signature_is_refused(name: str) -> None:
    refused(f"{_part({'alg': name, 'kid': 'one'})}.{_part(claims())}.")


@pytest.mark.threat("algorithm confusion by configuration")
@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "RS1"])
def test_no_file_allows_algorithms_with_shared_secrets(algorithm: str) -> None:
    with pytest.raises(ValidationError):
        section(algorithms=(algorithm,))


@pytest.mark.threat("foreign signature")
@pytest.mark.parametrize(
    "text",
    [
        token(STRANGER),
        token(kid="unknown"),
        token(CURVE, "ES256", "one"),
        token(iss="https://other.example"),
        token(aud="another service"),
        token(aud=None),
        token(sub=None),
        token(exp=None),
        token(iat=None),
        token()[:-4] + "AAAA",
        "a.b.c",
        "..",
    ],
)
def test_a_token_of_others_or_for_others_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.threat("header that names its own key")
def test_keys_and_addresses_in_a_tokens_header_are_not_used() -> None:
    own = jwk(STRANGER.public_key(), "one")
    text = jwt.encode(
        claims(),
        STRANGER,
        "RS256",
        headers={"kid": "one", "jwk": own, "jku": "http://127.0.0.1/keys", "x5u": "file:///x"},
    )
    refused(text)


@pytest.mark.threat("expired token")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": NOW - 11}, "has expired"),
        ({"iat": NOW + 60}, "not valid yet"),
        ({"nbf": NOW + 60}, "not valid yet"),
        ({"exp": NOW + 864_000}, "longer than"),
        ({"exp": True}, "no numbers"),
    ],
)
def test_a_token_out_of_its_time_is_refused(changes: dict[str, Any], why: str) -> None:
    assert why in refused(token(**changes))


@pytest.mark.threat("claims beyond the issuer")
@pytest.mark.parametrize(
    "changes",
    [
        {"organisation": ""},
        {"organisation": "a\nb"},
        {"organisation": ["acme"]},
        {"models": ["large"]},
        {"tasks": ["generate"]},
        {"priority_ceiling": "boss"},
        {"tags": "x"},
    ],
)
def test_claims_that_cannot_be_used_are_refused(changes: dict[str, Any]) -> None:
    refused(token(**changes), section(models=("small-*",), tasks=("embed",)))


def test_claims_only_narrow_what_the_file_gives() -> None:
    issuer = section(models=("small-*",), tasks=("embed", "rerank"), priority_ceiling="high")
    grant = verify(token(models=["small-1", "large"], priority_ceiling="critical"), issuer)
    assert (grant.scope.models, grant.ceiling) == (("small-1",), 3)
    assert verify(token(priority_ceiling="low"), issuer).ceiling == 1
    assert verify(token(), issuer).scope.models == ("small-*",)


def test_an_organisation_of_the_file_comes_before_a_claim() -> None:
    assert verify(
        token(organisation="x"), section(organisation="fixed")
    ).principal.organisation == ("fixed")


@pytest.mark.threat("expired token on an open stream")
async def test_a_token_that_was_accepted_is_refused_once_it_expires() -> None:
    clock = FakeClock(NOW)
    keys = KeyRing([], TokenVerifier([section()], {ISSUER: KEYS}), clock)
    metadata = {"authorization": f"Bearer {token(exp=NOW + 5)}"}
    who = keys.authenticate(metadata).principal
    await clock.advance(16)
    with pytest.raises(Fault):
        keys.authenticate(metadata)
    with pytest.raises(Fault):
        keys.grant(who)


def test_tokens_by_a_key_that_its_issuer_withdraws_are_refused() -> None:
    verifier = TokenVerifier([section()], {ISSUER: KEYS})
    text = token()
    verifier.verify(text, NOW)
    verifier.replace_keys(ISSUER, {"two": KEYS["two"]})
    with pytest.raises(Fault):
        verifier.verify(text, NOW)


def _part(value: object) -> str:
    return _text(json.dumps(value).encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
