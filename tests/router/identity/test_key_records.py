"""Texts of keys, what is kept of them, and when one is accepted."""

from __future__ import annotations

import ast
import inspect

import pytest
from penstock.api.router.v1 import keys_pb2 as pb
from penstock.router.identity import key_records
from penstock.router.identity.key_records import (
    KeyRecord,
    accepts,
    id_in,
    keyed_hash,
    new_id,
    new_text,
)

SECRET = b"s" * 32
NOW = 1_000_000
NEW, OLD = keyed_hash(SECRET, "new"), keyed_hash(SECRET, "old")


def record(**fields: int) -> KeyRecord:
    return KeyRecord(pb.Key(id="k", **fields), NEW, OLD)  # type: ignore[arg-type]


def test_a_text_names_its_key_and_has_a_secret_of_its_own() -> None:
    key_id = new_id()
    texts = {new_text(key_id) for _ in range(100)}
    assert len(texts) == 100
    assert {id_in(text) for text in texts} == {key_id}
    assert all(len(text.rpartition(key_id)[2]) >= 43 for text in texts)


@pytest.mark.threat("enumeration of ids")
def test_ids_of_keys_are_random() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) * 4 >= 96 for each in ids)


@pytest.mark.parametrize("text", ["", "psk_", "psk_1_x", "psk-test-key", "psk_" + "0" * 24 + "_"])
def test_other_texts_name_no_key(text: str) -> None:
    assert id_in(text) is None


@pytest.mark.threat("stolen store")
def test_what_is_kept_depends_on_the_deployments_secret() -> None:
    assert keyed_hash(SECRET, "x") != keyed_hash(b"t" * 32, "x")
    assert len(keyed_hash(SECRET, "x")) == 32


@pytest.mark.parametrize(
    ("known", "given", "accepted"),
    [
        (record(), NEW, True),
        (record(), OLD, False),
        (record(overlap_ends_unix_ms=NOW + 1), OLD, True),
        (record(overlap_ends_unix_ms=NOW), OLD, False),
        (record(expires_unix_ms=NOW + 1), NEW, True),
        (record(expires_unix_ms=NOW), NEW, False),
        (record(revoked_unix_ms=1), NEW, False),
        (record(revoked_unix_ms=1, overlap_ends_unix_ms=NOW + 1), OLD, False),
        (KeyRecord(pb.Key(id="k", overlap_ends_unix_ms=NOW + 1), NEW), bytes(32), False),
        (None, bytes(32), False),
    ],
)
def test_a_text_is_accepted_while_it_is_in_force(
    known: KeyRecord | None, given: bytes, accepted: bool
) -> None:
    if known is not None and not known.earlier_hash:
        given = b""
    assert accepts(known, given, NOW) is accepted


@pytest.mark.threat("timing of comparisons")
def test_hashes_are_compared_in_constant_time_only_and_whatever_is_known() -> None:
    """By structure: `accepts` compares no bytes with ==, and compares twice before it branches."""
    [function] = ast.parse(inspect.getsource(key_records.accepts)).body
    assert isinstance(function, ast.FunctionDef)
    calls = [
        node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hmac.compare_digest"
    ]
    branches = [node.lineno for node in ast.walk(function) if isinstance(node, ast.If)]
    equals = [node for node in ast.walk(function) if isinstance(node, ast.Eq | ast.NotEq)]
    assert len(calls) == 2
    assert max(calls) < min(branches)
    assert not equals
