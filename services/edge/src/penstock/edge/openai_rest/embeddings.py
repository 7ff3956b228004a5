"""`POST /v1/embeddings`. Pure."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any

import orjson
from penstock.api.router.v1 import router_pb2
from penstock.edge.json_fields import (
    name,
    parse_body,
    refused,
    required,
    unknown_fields,
    whole,
    word,
)
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure

FORMATS = ("float", "base64")
HONOURED = frozenset({"input", "model", "encoding_format", "dimensions"})
MAX_TEXTS = 1024
TOKEN_IDS = (
    "holds token ids, which mean nothing without their tokenizer; send texts "
    "(LangChain: check_embedding_ctx_length=False)"
)


@dataclass(frozen=True)
class EmbeddingsAsked:
    """A request for embeddings; `dimensions` is 0 for the model's own."""

    texts: tuple[str, ...]
    model: str
    as_base64: bool
    dimensions: int
    ignored: tuple[str, ...]


@pure
def read_embeddings(body: bytes) -> EmbeddingsAsked:
    """What is asked.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    fields = parse_body(body)
    return EmbeddingsAsked(
        _texts(required(fields.get("input"), "input")),
        name(fields.get("model"), "model"),
        word(fields.get("encoding_format"), "encoding_format", FORMATS) == "base64",
        whole(fields.get("dimensions"), "dimensions", 1, 1 << 16) or 0,
        tuple(unknown_fields(fields, HONOURED)),
    )


def _texts(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise refused("input", "must be a text or a list of texts that is not empty")
    if any(isinstance(each, int | list) for each in texts):
        raise unsupported("input", TOKEN_IDS)
    if len(texts) > MAX_TEXTS:
        raise refused("input", f"must hold at most {MAX_TEXTS} texts")
    return tuple(name(each, f"input[{index}]") for index, each in enumerate(texts))


@pure
def embeddings_body(
    response: router_pb2.EmbedResponse, asked: EmbeddingsAsked, model: str
) -> bytes:
    """The body of the answer.

    Raises:
        BadRequest: the vectors have another number of components than asked for.
    """
    found = len(response.embeddings[0].values) if response.embeddings else 0
    if asked.dimensions not in (0, found):
        raise unsupported("dimensions", f"{model} gives vectors of {found}; ask for these")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(each.values) if asked.as_base64 else list(each.values),
        }
        for index, each in enumerate(response.embeddings)
    ]
    tokens = response.receipt.usage.input_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def _packed(values: Any) -> str:
    """Components as little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
