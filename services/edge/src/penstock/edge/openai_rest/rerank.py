"""`POST /v1/rerank`, in the form that Cohere, Jina and vLLM share. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from penstock.api.router.v1 import router_pb2
from penstock.edge.json_fields import (
    Json,
    boolean,
    list_at,
    name,
    object_at,
    parse_body,
    refused,
    unknown_fields,
    whole,
)
from penstock.edge.wire import Identity
from penstock.service.purity import pure

HONOURED = frozenset({"model", "query", "documents", "top_n", "return_documents"})
MAX_DOCUMENTS = 1024


@dataclass(frozen=True)
class RerankAsked:
    """A request for an order; `top_n` is 0 for all documents."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int
    returns_documents: bool
    ignored: tuple[str, ...]


@pure
def read_rerank(body: bytes) -> RerankAsked:
    """What is asked.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    fields = parse_body(body)
    documents = list_at(fields.get("documents"), "documents")
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        raise refused("documents", f"must hold 1 to {MAX_DOCUMENTS} texts")
    return RerankAsked(
        name(fields.get("model"), "model"),
        name(fields.get("query"), "query"),
        tuple(_document(each, f"documents[{place}]") for place, each in enumerate(documents)),
        whole(fields.get("top_n"), "top_n", 1, MAX_DOCUMENTS) or 0,
        bool(boolean(fields.get("return_documents"), "return_documents")),
        tuple(unknown_fields(fields, HONOURED)),
    )


def _document(given: object, at: str) -> str:
    """A text, or an object with one."""
    if isinstance(given, dict):
        return name(object_at(given, at).get("text"), f"{at}.text")
    return name(given, at)


@pure
def rerank_body(
    response: router_pb2.RerankResponse, asked: RerankAsked, identity: Identity
) -> bytes:
    """The body of the answer."""
    results: list[Json] = []
    for ranked in response.ranking:
        row: Json = {"index": ranked.index, "relevance_score": ranked.score}
        if asked.returns_documents:
            row["document"] = {"text": asked.documents[ranked.index]}
        results.append(row)
    tokens = response.receipt.usage.input_tokens
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    head = {"id": f"rerank-{identity.number}", "model": identity.model}
    return orjson.dumps({**head, "results": results, "usage": usage})
