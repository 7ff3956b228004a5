"""The wire format of `POST /rerank`, which Jina, Cohere and vLLM share.

Pure: a task in, a body out; bytes in, a result out. An answer of another shape becomes UNAVAILABLE,
since another upstream may do better.
"""

from __future__ import annotations

import json
import math
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.faults import malformed
from penstock.inference_upstream.protocols.json_values import SHAPE_ERRORS
from penstock.service.purity import pure
from penstock.tasks.kinds import RERANK
from penstock.tasks.rerank import ranking_of

PATH = "/rerank"


@pure
def rerank_request(task: pb.RerankTask, model: str) -> dict[str, Any]:
    """The body of `POST /rerank`. All documents are asked for: the best of them are taken here, by
    one rule for every provider.
    """
    return {
        "model": model,
        "query": task.query,
        "documents": list(task.documents),
        "top_n": len(task.documents),
        "return_documents": False,
    }


def parse_rerank(body: bytes, task: pb.Task) -> pb.TaskResult:
    """The result of a reranking.

    Raises:
        Fault: UNAVAILABLE where the answer is not what the protocol says.
    """
    try:
        answer = json.loads(body)
        scores = _scores(answer["results"], len(task.rerank.documents))
        tokens = int((answer.get("usage") or {}).get("total_tokens") or 0)
    except SHAPE_ERRORS:
        raise malformed("it is not a reranking of the documents") from None
    result = pb.TaskResult(revision=str(answer.get("model") or ""))
    result.rerank.CopyFrom(ranking_of(scores, task.rerank.top_n))
    result.usage.estimated = not tokens
    result.usage.input_tokens = tokens or RERANK.estimate(task).input_tokens
    return result


def _scores(rows: list[dict[str, Any]], documents: int) -> list[float]:
    """The score of each document; raises ValueError where one is missing, twice or no number."""
    scores = {int(row["index"]): float(row["relevance_score"]) for row in rows}
    if len(rows) != documents or set(scores) != set(range(documents)):
        raise ValueError("each document has one score")
    if not all(math.isfinite(score) for score in scores.values()):
        raise ValueError("a score is a number")
    return [scores[index] for index in range(documents)]
