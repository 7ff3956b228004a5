"""Receivers believe callbacks of their own organisation that were signed lately."""

from __future__ import annotations

import pytest
from penstock.client.callbacks import BadCallback, verify_callback
from penstock.router.jobs.callbacks import secret_of, sign

NOW = 1_000_000
BODY = b'{"id": "job"}'
OWN, OTHER = (secret_of("master", name) for name in ("acme", "other"))


def test_a_callback_of_ones_own_is_believed() -> None:
    verify_callback(OWN, sign(OWN, NOW, BODY), BODY, NOW + 299)


@pytest.mark.threat("replayed callback")
@pytest.mark.parametrize("later_s", [-301, 301, 86_400])
def test_a_callback_that_is_sent_again_later_is_refused(later_s: int) -> None:
    with pytest.raises(BadCallback, match="ago or ahead"):
        verify_callback(OWN, sign(OWN, NOW, BODY), BODY, NOW + later_s)


@pytest.mark.threat("replayed callback with another time or body")
@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (sign(OWN, NOW, BODY).replace(f"t={NOW}", f"t={NOW + 600}"), BODY),
        (sign(OWN, NOW, BODY), b'{"id": "jo2"}'),
        ("", BODY),
        (f"t={NOW},v1=", BODY),
        (f"t={NOW},v1={'0' * 64}", BODY),
    ],
)
def test_a_callback_that_was_changed_is_refused(signature: str, body: bytes) -> None:
    with pytest.raises(BadCallback):
        verify_callback(OWN, signature, body, NOW + 600)


@pytest.mark.threat("callback signed by another tenant")
def test_no_organisation_signs_for_another() -> None:
    for secret in (OTHER, "master", ""):
        with pytest.raises(BadCallback):
            verify_callback(OWN, sign(secret, NOW, BODY), BODY, NOW)
