"""The issuers of signed tokens: what verifies their tokens, and following their keys within
minutes.

Imported only where the configuration names an issuer: the libraries of signatures take 10 MB.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.router.identity import jwks
from penstock.router.identity.jwt_tokens import TokenVerifier
from penstock.router.settings import KeysSection, TokenIssuer
from penstock.service.clock import Clock
from penstock.service.settings import BadConfig

log = logging.getLogger(__name__)

REFETCH_S = 300.0
RETRY_S = 10.0

Get = Callable[[str], Awaitable[bytes]]
"""Reads a document from an address; raises OSError."""


def verifier_of_issuers(config_file: Path | None, section: KeysSection) -> TokenVerifier:
    """What verifies the tokens of the configured issuers.

    Raises:
        BadConfig: names every file of keys that cannot be used.
    """
    key_sets, problems = {}, []
    for issuer in section.tokens:
        if issuer.jwks_file is None:
            continue
        try:
            key_sets[issuer.issuer] = jwks.read_file(issuer.jwks_file)
        except jwks.BadKeySet as error:
            problems.append(f"{config_file}: keys.tokens: {issuer.jwks_file}: {error}")
    if problems:
        raise BadConfig(problems)
    return TokenVerifier(section.tokens, key_sets)


async def follow_issuers(
    verifier: TokenVerifier,
    issuers: tuple[TokenIssuer, ...],
    clock: Clock,
    get: Get | None = None,
) -> None:
    """Fetch the keys of issuers that publish them at an address, for ever; while an address does
    not answer, what it said last holds.

    Args:
        get: by default over https, from public addresses only.
    """
    fetched = [issuer for issuer in issuers if issuer.jwks_url]
    while fetched:
        results = [await _fetch(verifier, issuer, get or jwks.HttpsGet()) for issuer in fetched]
        await clock.sleep(REFETCH_S if all(results) else RETRY_S)


async def _fetch(verifier: TokenVerifier, issuer: TokenIssuer, get: Get) -> bool:
    try:
        verifier.replace_keys(issuer.issuer, jwks.parse(await get(issuer.jwks_url)))
    except (OSError, TimeoutError, jwks.BadKeySet) as error:
        log.warning("keys of the issuer %s: %s; the earlier ones hold", issuer.issuer, error)
        return False
    return True
