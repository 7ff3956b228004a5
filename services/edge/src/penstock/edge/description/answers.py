"""What answers have. Where a request's wire is its provider's, the provider may add to it. Pure."""

from __future__ import annotations

from penstock.edge.description.schema_parts import (
    BOOLEAN,
    COUNT,
    NAME,
    NUMBER,
    OBJECT,
    TEXT,
    Schema,
    either,
    list_of,
    optional,
    record,
    ref,
    word,
)

ERROR = record(
    {
        "error": record(
            {"message": TEXT, "type": NAME, "param": optional(TEXT), "code": optional(TEXT)}
        )
    }
)
MESSAGES_ERROR = record(
    {"type": word("error"), "error": record({"type": NAME, "message": TEXT})},
    {"request_id": TEXT},
)
CHAT = record(
    {
        "id": NAME,
        "object": word("chat.completion"),
        "created": COUNT,
        "model": TEXT,
        "choices": list_of(record({"index": COUNT, "message": OBJECT, "finish_reason": NAME}), 1),
        "usage": record(
            {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT}
        ),
    }
)
RESPONSE = record(
    {
        "id": NAME,
        "object": word("response"),
        "created_at": NUMBER,
        "model": TEXT,
        "status": word("completed", "incomplete", "failed", "in_progress"),
        "output": list_of(record({"type": NAME})),
        "parallel_tool_calls": BOOLEAN,
        "tool_choice": either(TEXT, OBJECT),
        "tools": list_of(OBJECT),
    },
    {"usage": record({"input_tokens": COUNT, "output_tokens": COUNT})},
)
MESSAGE = record(
    {
        "id": NAME,
        "type": word("message"),
        "role": word("assistant"),
        "model": TEXT,
        "content": list_of(record({"type": NAME})),
        "stop_reason": NAME,
        "usage": record({"input_tokens": COUNT, "output_tokens": COUNT}),
    }
)
EMBEDDING = record(
    {
        "object": word("embedding"),
        "index": COUNT,
        "embedding": either(TEXT, list_of(NUMBER)),
    }
)
EMBEDDINGS = record(
    {
        "object": word("list"),
        "data": list_of(EMBEDDING, 1),
        "model": TEXT,
        "usage": record({"prompt_tokens": COUNT, "total_tokens": COUNT}),
    }
)
RERANK = record(
    {
        "id": NAME,
        "model": TEXT,
        "results": list_of(record({"index": COUNT, "relevance_score": NUMBER})),
        "usage": record({"total_tokens": COUNT}),
    }
)
MODEL = record(
    {"id": NAME, "object": word("model"), "created": COUNT, "owned_by": TEXT},
    {"type": word("model"), "display_name": TEXT, "created_at": TEXT},
)
PAGE = {"has_more": BOOLEAN, "first_id": optional(TEXT), "last_id": optional(TEXT)}
MODELS = record({"object": word("list"), "data": list_of(ref("Model")), **PAGE})
ITEMS = record({"object": word("list"), "data": list_of(record({"type": NAME})), **PAGE})
ANSWERS: dict[str, Schema] = {
    "Error": ERROR,
    "MessagesError": MESSAGES_ERROR,
    "ChatCompletion": CHAT,
    "Response": RESPONSE,
    "DeletedResponse": record({"id": NAME, "deleted": BOOLEAN}),
    "InputItems": ITEMS,
    "InputTokens": record({"object": word("response.input_tokens"), "input_tokens": COUNT}),
    "Message": MESSAGE,
    "CountedTokens": record({"input_tokens": COUNT}),
    "Embeddings": EMBEDDINGS,
    "Ranking": RERANK,
    "Model": MODEL,
    "Models": MODELS,
    "Receipt": record({"request_id": NAME}),
    "Health": record({"status": word("ok")}),
}
