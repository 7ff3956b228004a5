"""The whole description. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from penstock.edge.anthropic_messages.errors import KINDS
from penstock.edge.description.answers import ANSWERS
from penstock.edge.description.requests import REQUESTS
from penstock.edge.description.schema_parts import NAME, TEXT, Schema, ref, word
from penstock.edge.openai_chat.errors import STATUSES
from penstock.edge.wire import FailureKind
from penstock.service.purity import pure

JSON, EVENTS = "application/json", "text/event-stream"
VERSION = "1"
NEVER_TOLD = {FailureKind.CLIENT_LEFT, FailureKind.INTERNAL}
"""Nobody is there to be told, or it is a mistake of ours."""
PATH_ID = {"name": "id", "in": "path", "required": True, "schema": NAME}
LIMIT = {"type": "integer", "minimum": 1, "maximum": 100}


@pure
def openapi_json() -> bytes:
    """The document, as it is served."""
    return orjson.dumps(openapi_document())


@pure
def openapi_document() -> dict[str, Any]:
    """The document."""
    key = {"type": "http", "scheme": "bearer"}
    also = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock's HTTP edge", "version": VERSION},
        "paths": {**_conversations(), **_kept_responses(), **_others(), **_open()},
        "security": [{"bearer": []}, {"key": []}],
        "components": {
            "schemas": {**REQUESTS, **ANSWERS},
            "securitySchemes": {"bearer": key, "key": also},
        },
    }


def _conversations() -> Schema:
    return {
        "/v1/chat/completions": _post("ChatCompletionRequest", "ChatCompletion", streams=True),
        "/v1/responses": _post("ResponseRequest", "Response", streams=True),
        "/v1/responses/input_tokens": _post("InputTokensRequest", "InputTokens"),
        "/v1/messages": _post("MessageRequest", "Message", "MessagesError", streams=True),
        "/v1/messages/count_tokens": _post("CountTokensRequest", "CountedTokens", "MessagesError"),
        "/v1/embeddings": _post("EmbeddingsRequest", "Embeddings"),
        "/v1/rerank": _post("RerankRequest", "Ranking"),
    }


def _kept_responses() -> Schema:
    page = [
        _query("limit", LIMIT),
        _query("order", word("asc", "desc")),
        _query("after", TEXT),
    ]
    return {
        "/v1/responses/{id}": {
            "parameters": [PATH_ID],
            "get": _operation("Response"),
            "delete": _operation("DeletedResponse"),
        },
        "/v1/responses/{id}/input_items": {
            "parameters": [PATH_ID, *page],
            "get": _operation("InputItems"),
        },
    }


def _others() -> Schema:
    return {
        "/v1/models": {"get": _operation("Models")},
        "/v1/models/{id}": {"parameters": [PATH_ID], "get": _operation("Model")},
        "/v1/receipts/{id}": {"parameters": [PATH_ID], "get": _operation("Receipt")},
    }


def _open() -> Schema:
    """What needs no key."""
    health = {**_operation("Health"), "security": []}
    document = {"200": _answer({"type": "object"}), **_failures("Error")}
    return {
        "/healthz": {"get": health},
        "/openapi.json": {"get": {"responses": document, "security": []}},
    }


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _post(request: str, answer: str, error: str = "Error", *, streams: bool = False) -> Schema:
    body = {"required": True, "content": {JSON: {"schema": ref(request)}}}
    return {"post": {"requestBody": body, **_operation(answer, error, streams=streams)}}


def _operation(answer: str, error: str = "Error", *, streams: bool = False) -> Schema:
    answered = _answer(ref(answer))
    if streams:
        answered["content"][EVENTS] = {}
    return {"responses": {"200": answered, **_failures(error)}}


def _failures(error: str) -> Schema:
    return {str(status): _answer(ref(error)) for status in _statuses(error)}


def _statuses(error: str) -> Sequence[int]:
    kinds = [kind for kind in FailureKind if kind not in NEVER_TOLD]
    if error == "MessagesError":
        return sorted({KINDS[kind].status for kind in kinds})
    return sorted({STATUSES.get(kind, kind.value) for kind in kinds})


def _answer(schema: Schema) -> Schema:
    return {"description": "", "content": {JSON: {"schema": schema}}}
