"""OpenAI's wire format of embeddings.

Pure: a task in, a body out; bytes in, a result out. An answer of another shape becomes UNAVAILABLE,
since another upstream may do better.
"""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.faults import malformed
from penstock.inference_upstream.protocols.openai_chat import BYTES_PER_TOKEN, parse_object
from penstock.service.purity import pure


@pure
def embeddings_request(task: pb.EmbedTask, model: str) -> dict[str, Any]:
    """The body of `POST /embeddings`."""
    return {"model": model, "input": list(task.texts), "encoding_format": "float"}


def parse_embeddings(body: bytes, task: pb.EmbedTask) -> pb.TaskResult:
    """The result of an embeddings answer, its vectors in the order of the task's texts.

    Raises:
        Fault: UNAVAILABLE where the body is not such an answer, or has another number of vectors.
    """
    data = parse_object(body)
    try:
        rows = sorted(data["data"], key=lambda row: int(row["index"]))
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError):
        raise malformed("the answer has no vectors") from None
    if len(vectors) != len(task.texts):
        raise malformed(f"{len(vectors)} vectors came for {len(task.texts)} texts")
    result = pb.TaskResult(revision=str(data.get("model", "")))
    for vector in vectors:
        result.embed.embeddings.add(values=vector)
    reported = (data.get("usage") or {}).get("prompt_tokens")
    if isinstance(reported, int):
        result.usage.input_tokens = reported
    else:
        result.usage.input_tokens = sum(len(text) for text in task.texts) // BYTES_PER_TOKEN
        result.usage.estimated = True
    return result
