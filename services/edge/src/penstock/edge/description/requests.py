"""What requests have, as far as the edge reads it. What changes the meaning and cannot be honoured
is left out here and refused; hints and fields that are not known are taken. Pure.
"""

from __future__ import annotations

from penstock.edge.description.schema_parts import (
    BOOLEAN,
    NAME,
    OBJECT,
    TEXT,
    TOKENS,
    Schema,
    between,
    either,
    list_of,
    record,
    ref,
    word,
)
from penstock.tasks.generate import EFFORTS

METADATA: Schema = {"type": "object", "additionalProperties": TEXT}
CHOICE = word("auto", "none", "required")
EFFORT = word(*EFFORTS[1:])
CONTENT_PART = record(
    {"type": word("text", "image_url", "file", "refusal")},
    {"text": TEXT, "image_url": record({"url": NAME}), "file": OBJECT, "refusal": TEXT},
)
CHAT_MESSAGE = record(
    {"role": word("system", "developer", "user", "assistant", "tool")},
    {
        "content": either(TEXT, list_of(CONTENT_PART)),
        "tool_call_id": NAME,
        "tool_calls": list_of(record({"id": NAME, "function": record({"name": NAME})})),
    },
)
FUNCTION = {"name": NAME}, {"description": TEXT, "parameters": OBJECT, "strict": BOOLEAN}
CHAT_TOOL = record({"type": word("function"), "function": record(*FUNCTION)})
RESPONSE_TOOL = record({"type": word("function"), "name": NAME}, FUNCTION[1])
SAMPLING = {"temperature": between(0, 2), "top_p": between(0, 1)}

CHAT = record(
    {"model": NAME, "messages": list_of(CHAT_MESSAGE, 1)},
    {
        **SAMPLING,
        "max_completion_tokens": TOKENS,
        "max_tokens": TOKENS,
        "metadata": METADATA,
        "parallel_tool_calls": BOOLEAN,
        "prompt_cache_key": TEXT,
        "reasoning_effort": EFFORT,
        "response_format": record({"type": word("text", "json_object", "json_schema")}),
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "stop": either(NAME, list_of(NAME)),
        "stream": BOOLEAN,
        "stream_options": record({}, {"include_usage": BOOLEAN}),
        "tool_choice": either(CHOICE, record({"type": word("function", "allowed_tools")})),
        "tools": list_of(CHAT_TOOL),
    },
)
RESPONSE_FIELDS: dict[str, Schema] = {
    **SAMPLING,
    "include": list_of(NAME),
    "instructions": TEXT,
    "max_output_tokens": TOKENS,
    "metadata": METADATA,
    "parallel_tool_calls": BOOLEAN,
    "previous_response_id": TEXT,
    "prompt_cache_key": TEXT,
    "reasoning": record({}, {"effort": EFFORT}),
    "store": BOOLEAN,
    "stream": BOOLEAN,
    "tool_choice": either(CHOICE, record({"type": word("function", "allowed_tools")})),
    "tools": list_of(RESPONSE_TOOL),
    "truncation": word("auto", "disabled"),
}
INPUT = either(NAME, list_of(OBJECT))
RESPONSE = record({"input": INPUT}, {"model": TEXT, **RESPONSE_FIELDS})
INPUT_TOKENS = record({}, {"model": TEXT, "input": INPUT, "instructions": TEXT})
MESSAGE_BLOCK = record({"type": NAME}, {"text": TEXT})
TURN = record(
    {"role": word("user", "assistant", "system"), "content": either(TEXT, list_of(MESSAGE_BLOCK))}
)
TOKENS_OF_MESSAGES = record(
    {"model": NAME, "messages": list_of(TURN, 1)},
    {
        "system": either(TEXT, list_of(MESSAGE_BLOCK)),
        "temperature": between(0, 1),
        "thinking": record({"type": word("enabled", "disabled", "adaptive")}),
        "tool_choice": record({"type": word("auto", "any", "tool", "none")}),
        "tools": list_of(record({"name": NAME}, {"description": TEXT, "input_schema": OBJECT})),
        "top_p": between(0, 1),
    },
)
MESSAGES: Schema = {
    "allOf": [
        ref("CountTokensRequest"),
        record({"max_tokens": TOKENS}, {"stream": BOOLEAN, "stop_sequences": list_of(TEXT)}),
    ]
}
EMBEDDINGS = record(
    {"model": NAME, "input": either(NAME, {**list_of(NAME, 1), "maxItems": 1024})},
    {
        "encoding_format": word("float", "base64"),
        "dimensions": {"type": "integer", "minimum": 1, "maximum": 1 << 16},
    },
)
DOCUMENT = either(NAME, record({"text": NAME}))
RERANK = record(
    {"model": NAME, "query": NAME, "documents": {**list_of(DOCUMENT, 1), "maxItems": 1024}},
    {
        "top_n": {"type": "integer", "minimum": 1, "maximum": 1024},
        "return_documents": BOOLEAN,
    },
)
REQUESTS: dict[str, Schema] = {
    "ChatCompletionRequest": CHAT,
    "ResponseRequest": RESPONSE,
    "InputTokensRequest": INPUT_TOKENS,
    "CountTokensRequest": TOKENS_OF_MESSAGES,
    "MessageRequest": MESSAGES,
    "EmbeddingsRequest": EMBEDDINGS,
    "RerankRequest": RERANK,
}
