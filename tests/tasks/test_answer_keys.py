"""Keys and tenants of reusable answers."""

from __future__ import annotations

import pytest
from penstock.rpc.call import Principal
from penstock.tasks.answer_keys import KEY_BYTES, covers, exact_key, key_salt, keyed_hash, tenant_of

ANN = Principal("acme", team="core", tags=("support", "billing"))


def test_a_tenant_is_an_organisation_team_and_set_of_tags() -> None:
    same = Principal("acme", team="core", tags=("billing", "support"))
    assert tenant_of(ANN) == tenant_of(same)
    assert tenant_of(ANN) != tenant_of(Principal("acme", team="core", tags=("support",)))


@pytest.mark.parametrize(
    ("principal", "is_covered"),
    [
        (ANN, True),
        (Principal("acme", team="sales"), False),
        (Principal("rival"), False),
        (Principal("acme"), True),
        (Principal("acme2"), False),
        (Principal(""), True),
    ],
)
def test_an_organisation_covers_all_its_tenants_and_a_team_its_own(
    principal: Principal, is_covered: bool
) -> None:
    assert covers(principal, tenant_of(ANN)) is is_covered


@pytest.mark.threat("guessed keys of cached answers")
def test_a_hash_depends_on_the_secret_and_on_where_its_parts_end() -> None:
    assert len(keyed_hash(b"secret", b"a")) == 2 * KEY_BYTES
    assert keyed_hash(b"secret", b"ab", b"c") != keyed_hash(b"secret", b"a", b"bc")
    assert keyed_hash(b"secret", b"a") != keyed_hash(b"other", b"a")


def test_a_key_depends_on_everything_that_an_answer_may_depend_on() -> None:
    salt = key_salt(b"secret")
    keys = {
        exact_key(salt, "tenant", "", "model", b"", b"task"),
        exact_key(key_salt(b"other"), "tenant", "", "model", b"", b"task"),
        exact_key(salt, "tenant2", "", "model", b"", b"task"),
        exact_key(salt, "tenant", "namespace", "model", b"", b"task"),
        exact_key(salt, "tenant", "", "model@2", b"", b"task"),
        exact_key(salt, "tenant", "", "model", b"context", b"task"),
        exact_key(salt, "tenant", "", "model", b"", b"task2"),
    }
    assert len(keys) == 7
