"""Log-probabilities of a chat completion. Pure: JSON values in, messages out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.json_values import objects_of, text_of


def token_logprobs(logprobs: dict[str, Any]) -> list[pb.TokenLogprob]:
    """The log-probabilities of an answer's or a refusal's tokens.

    Raises:
        KeyError, TypeError, ValueError: they do not have the expected shape.
    """
    rows = objects_of(logprobs.get("content")) + objects_of(logprobs.get("refusal"))
    return [
        pb.TokenLogprob(
            chosen=_scored(row),
            alternatives=[_scored(each) for each in objects_of(row.get("top_logprobs"))],
        )
        for row in rows
    ]


def _scored(row: dict[str, Any]) -> pb.ScoredToken:
    utf8 = bytes(row["bytes"]) if isinstance(row.get("bytes"), list) else b""
    return pb.ScoredToken(token=text_of(row["token"]), logprob=float(row["logprob"]), utf8=utf8)
