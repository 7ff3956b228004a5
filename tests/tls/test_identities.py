"""Who may call which service: by the names of a certificate, or by the secret of a pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock.api.cache.v1 import cache_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.auth import (
    CONTEXT_KEY,
    TOKEN_KEY,
    CallerMetadata,
    audience_of,
    internal,
    proof,
    services_only,
)
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.service.service_tokens import BadTokens, SharedToken, TokenFile

CACHE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
SECRET, NEXT, OTHER = "router-and-cache-0123456789", "router-and-cache-9876543210", "x" * 20
NO_TOKENS = SharedToken("")


def certified(*names: str) -> CallerMetadata:
    metadata = CallerMetadata()
    metadata.names = frozenset(names)
    return metadata


def with_token(token: str) -> CallerMetadata:
    return CallerMetadata({TOKEN_KEY: token})


def caller_at(service: object, metadata: CallerMetadata, tokens: object = NO_TOKENS) -> str:
    call = services_only(service, tokens)(metadata)  # type: ignore[arg-type]
    assert isinstance(call, Call)
    return call.caller


def refusal(service: object, metadata: CallerMetadata, tokens: object = NO_TOKENS) -> str:
    with pytest.raises(Fault) as caught:
        caller_at(service, metadata, tokens)
    return caught.value.code.name


@pytest.fixture
def pair(tmp_path: Path) -> TokenFile:
    """The secrets of a cache that the router calls."""
    return TokenFile(written(tmp_path, {"router": [SECRET], "console": [OTHER]}))


def written(folder: Path, accept: dict[str, list[str]], **more: object) -> Path:
    path = folder / "cache.yaml"
    beside = folder / "new.yaml"
    beside.write_text(json.dumps({"accept": accept, **more}))
    beside.replace(path)
    return path


def test_a_service_that_may_call_is_known_by_its_certificate() -> None:
    assert caller_at(CACHE, certified("router", "localhost", "127.0.0.1")) == "router"


@pytest.mark.threat("a service calls what it may not: by certificate")
@pytest.mark.parametrize(
    ("service", "name"),
    [
        (CACHE, "batcher"),
        (CACHE, "inference-upstream"),
        (INFERENCE, "cache"),
        (REGISTRY, "limiter"),
    ],
)
def test_a_service_that_may_not_call_is_refused(service: object, name: str) -> None:
    assert refusal(service, certified(name, "localhost")) == "PERMISSION_DENIED"


@pytest.mark.threat("a certificate of the right authority that names no service")
def test_a_certificate_without_a_known_name_is_refused() -> None:
    assert refusal(CACHE, certified("www.example.org")) == "PERMISSION_DENIED"


@pytest.mark.threat("no token at a port for services")
def test_nobody_is_refused_even_where_no_secret_is_set() -> None:
    assert refusal(CACHE, CallerMetadata()) == "UNAUTHENTICATED"
    assert refusal(CACHE, with_token("")) == "UNAUTHENTICATED"


def test_a_service_is_known_by_the_secret_of_the_pair(pair: TokenFile) -> None:
    sent = proof(SECRET, "router", audience_of(CACHE.full_name, "10.0.0.1:7071"))
    assert caller_at(CACHE, with_token(sent), pair) == "router"


@pytest.mark.threat("a service says that it is another")
def test_one_secret_does_not_prove_another_name(pair: TokenFile) -> None:
    assert refusal(CACHE, with_token(proof(OTHER, "router", "cache")), pair) == "UNAUTHENTICATED"
    forged = proof(OTHER, "console", "cache").replace("console", "router")
    assert refusal(CACHE, with_token(forged), pair) == "UNAUTHENTICATED"


@pytest.mark.threat("a service calls what it may not: by token")
def test_a_known_service_that_may_not_call_is_refused(tmp_path: Path) -> None:
    tokens = TokenFile(written(tmp_path, {"scaler": [SECRET]}))
    sent = with_token(proof(SECRET, "scaler", "cache"))
    assert refusal(CACHE, sent, tokens) == "PERMISSION_DENIED"


@pytest.mark.threat("replayed token: at another service")
def test_what_one_service_was_sent_is_no_use_at_another(pair: TokenFile) -> None:
    for_limiter = proof(SECRET, "router", "limiter")
    assert refusal(CACHE, with_token(for_limiter), pair) == "UNAUTHENTICATED"


@pytest.mark.threat("stolen token: an address that somebody else has registered")
def test_what_a_registered_address_was_sent_is_no_use_at_another(tmp_path: Path) -> None:
    tokens = TokenFile(written(tmp_path, {"batcher": [SECRET]}))
    at = services_only(INFERENCE, tokens, address=lambda: "10.0.0.1:7074")
    stolen = proof(SECRET, "batcher", audience_of(INFERENCE.full_name, "10.6.6.6:7074"))
    with pytest.raises(Fault):
        at(with_token(stolen))
    own = proof(SECRET, "batcher", audience_of(INFERENCE.full_name, "10.0.0.1:7074"))
    assert isinstance(call := at(with_token(own)), Call) and call.caller == "batcher"


@pytest.mark.threat("the secret of a pair on the wire")
def test_a_proof_does_not_hold_the_secret() -> None:
    assert SECRET not in proof(SECRET, "router", "cache")


@pytest.mark.threat("the secret of a pair sent as an operator's")
def test_the_secret_itself_is_no_operators_token(pair: TokenFile) -> None:
    assert refusal(CACHE, with_token(SECRET), pair) == "UNAUTHENTICATED"


def test_two_secrets_are_accepted_while_one_is_replaced(tmp_path: Path) -> None:
    tokens = TokenFile(written(tmp_path, {"router": [SECRET]}))
    old, new = (with_token(proof(each, "router", "cache")) for each in (SECRET, NEXT))
    written(tmp_path, {"router": [SECRET, NEXT]})
    assert (caller_at(CACHE, old, tokens), caller_at(CACHE, new, tokens)) == ("router", "router")


@pytest.mark.threat("a replaced token")
def test_a_secret_that_was_replaced_is_refused_at_once(tmp_path: Path) -> None:
    tokens = TokenFile(written(tmp_path, {"router": [SECRET]}))
    old = with_token(proof(SECRET, "router", "cache"))
    assert caller_at(CACHE, old, tokens) == "router"
    written(tmp_path, {"router": [NEXT]})
    assert refusal(CACHE, old, tokens) == "UNAUTHENTICATED"


def test_a_bad_new_file_is_refused_and_the_old_secrets_stay(tmp_path: Path) -> None:
    tokens = TokenFile(written(tmp_path, {"router": [SECRET]}))
    written(tmp_path, {"router": ["short"]})
    sent = with_token(proof(SECRET, "router", "cache"))
    assert caller_at(CACHE, sent, tokens) == "router"


@pytest.mark.threat("secrets in an error: the tokens file")
def test_a_bad_file_is_named_without_its_secrets(tmp_path: Path) -> None:
    path = written(tmp_path, {"router": [SECRET]}, unknown={"router": OTHER})
    with pytest.raises(BadTokens) as caught:
        TokenFile(path)
    assert "unknown" in str(caught.value)
    assert SECRET not in str(caught.value) and OTHER not in str(caught.value)


@pytest.mark.threat("forged context: by whoever may not call")
def test_a_context_is_not_read_before_its_sender_is_known() -> None:
    context = common_pb2.CallContext(principal=common_pb2.Principal(organisation="victim"))
    metadata = CallerMetadata({CONTEXT_KEY: context.SerializeToString()})
    with pytest.raises(Fault) as caught:
        internal("the-token")(metadata)
    assert caught.value.code.name == "UNAUTHENTICATED"


@pytest.mark.threat("forged certificate names in metadata")
def test_names_come_from_the_connection_alone() -> None:
    sent = {"x509_subject_alternative_name": "router", "names": "router"}
    assert refusal(CACHE, CallerMetadata(sent)) == "UNAUTHENTICATED"


@pytest.mark.threat("a token that is no text")
@pytest.mark.parametrize("token", ["a|b|c", "||", "router|cache|", "röuter|cache|é", "|" * 50])
def test_nonsense_is_refused_and_breaks_nothing(token: str, pair: TokenFile) -> None:
    assert refusal(CACHE, with_token(token), pair) == "UNAUTHENTICATED"
