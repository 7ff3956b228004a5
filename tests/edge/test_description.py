"""The description of the paths at `/openapi.json`: all may read it, and what it says is so."""

from __future__ import annotations

import re
from typing import Any

import pytest
from penstock.edge.description.document import openapi_document
from running_edge import MODEL, Edge, with_key

DOCUMENT = openapi_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/embeddings": {"input": "hi"},
    "/v1/rerank": {"query": "hi", "documents": ["a", "b"]},
}
OTHER_MODELS = {"/v1/embeddings", "/v1/rerank"}
"""Paths that the only model here does not serve: its refusal is described too."""
OPERATIONS = [
    (method.upper(), path)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method != "parameters"
]


def refs_in(value: Any) -> set[str]:
    """The names of the schemas that a part of the document refers to."""
    text = str(value)
    return set(re.findall(r"#/components/schemas/(\w+)", text))


def test_what_is_referred_to_is_there_and_nothing_else() -> None:
    assert refs_in(DOCUMENT) == set(SCHEMAS)


async def test_everybody_may_read_it(edge: Edge) -> None:
    for path in ("/openapi.json", "/healthz"):
        assert (await edge.send("GET", path, headers={})).status == 200
        refused = await edge.send("POST", path, headers={})
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await edge.send("GET", "/openapi.json", headers={})).json == DOCUMENT


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_every_operation_is_there_and_asks_for_a_key(
    edge: Edge, method: str, path: str
) -> None:
    described = DOCUMENT["paths"][path][method.lower()]
    body = {"model": MODEL, **BODIES[path]} if path in BODIES else b""
    at = path.replace("{id}", "nothing")
    answer = await edge.send(method, at, body)
    assert str(answer.status) in described["responses"]
    assert answer.headers["content-type"] == "application/json"
    if "{id}" not in path and path not in OTHER_MODELS:
        assert answer.status == 200, answer.body
    if described.get("security") != []:
        assert (await edge.send(method, at, body, headers={})).status == 401


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
async def test_a_method_that_is_not_described_is_405(edge: Edge, path: str) -> None:
    for method in ("PUT", "PATCH"):
        answer = await edge.send(method, path.replace("{id}", "x"), headers=with_key())
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) >= {
            each for each, at in OPERATIONS if at == path
        }
