"""Operators: people and programs that may change what services keep, each by its own secret."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from penstock.rpc.auth import Authenticator, Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import unauthenticated


def check_operators(text: str) -> str:
    """For settings: raises ValueError where the text is no list of `name=secret`."""
    if any("=" not in part for part in text.split(",") if part.strip()):
        raise ValueError("must be name=secret pairs, separated by commas")
    return text


def operators_by_secret(text: str) -> dict[str, str]:
    """The names of operators by their secrets, of `name=secret` pairs separated by commas."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    return {secret: name for name, _, secret in pairs if secret}


def operator_authenticator(by_secret: Mapping[str, str]) -> Authenticator:
    """Authenticate by `authorization: Bearer SECRET`, compared in constant time with each secret;
    the call's user is the operator's name.
    """

    def authenticate(metadata: Metadata) -> Call:
        given = str(metadata.get("authorization", "")).removeprefix("Bearer ").encode()
        names = [
            name
            for secret, name in by_secret.items()
            if hmac.compare_digest(given, secret.encode())
        ]
        if not names:
            raise unauthenticated(
                "metadata authorization: send `Bearer SECRET` with the secret of an operator"
            )
        return Call(Principal("", user=names[0]))

    return authenticate
