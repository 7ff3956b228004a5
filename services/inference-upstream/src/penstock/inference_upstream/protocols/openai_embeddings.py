"""OpenAI's wire format of embeddings.

Pure: a task in, a body out; bytes in, a result out. An answer of another shape becomes UNAVAILABLE,
since another upstream may do better.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.faults import error_fault, malformed
from penstock.inference_upstream.protocols.json_values import SHAPE_ERRORS, parse_object
from penstock.inference_upstream.switches import Switches
from penstock.service.purity import pure
from penstock.tasks.kind import BYTES_PER_TOKEN
from penstock.tasks.kinds import EMBED

PATH = "/embeddings"
FLOAT_BYTES = 4


@pure
def embeddings_request(task: pb.EmbedTask, model: str, switches: Switches) -> dict[str, Any]:
    """The body of `POST /embeddings`."""
    body = {"model": model, "input": list(task.texts), "encoding_format": "float"}
    return {name: value for name, value in body.items() if name not in switches.omit}


def parse_embeddings(body: bytes, task: pb.EmbedTask) -> pb.TaskResult:
    """The result of an embeddings answer, its vectors in the order of the task's texts.

    Raises:
        Fault: UNAVAILABLE where the body is not such an answer, or has another number of vectors.
    """
    data = parse_object(body)
    if data.get("error"):
        raise error_fault(data["error"])
    try:
        rows = sorted(data["data"], key=lambda row: int(row["index"]))
        vectors = [_vector(row["embedding"]) for row in rows]
    except (*SHAPE_ERRORS, struct.error):
        raise malformed("the answer has no vectors") from None
    if len(vectors) != len(task.texts):
        raise malformed(f"{len(vectors)} vectors came for {len(task.texts)} texts")
    result = pb.TaskResult(revision=str(data.get("model") or ""))
    for vector in vectors:
        result.embed.embeddings.add(values=vector)
    usage = data.get("usage")
    reported = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if isinstance(reported, int) and reported > 0:
        result.usage.input_tokens = reported
    else:
        result.usage.input_tokens = sum(len(text) for text in task.texts) // BYTES_PER_TOKEN
        result.usage.estimated = True
    return result


def _vector(embedding: Any) -> Sequence[float]:
    """A vector as a list of numbers, or as base64 of little-endian floats, which some servers send
    whatever was asked for.
    """
    if isinstance(embedding, str):
        data = base64.b64decode(embedding, validate=True)
        return struct.unpack(f"<{len(data) // FLOAT_BYTES}f", data)
    return [float(value) for value in embedding]


@pure
def joined(task: pb.Task, answers: Sequence[pb.TaskResult]) -> pb.TaskResult:
    """The answers of a task's pieces, in their order, as one answer."""
    whole = pb.TaskResult(revision=answers[0].revision)
    EMBED.merge(task, answers, whole)
    whole.usage.input_tokens = sum(answer.usage.input_tokens for answer in answers)
    whole.usage.estimated = any(answer.usage.estimated for answer in answers)
    return whole
