"""What must be right in a request, by field. Plain checks, nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.semantic_cache import Embedder
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid

MAX_ANSWERS = 1_000


def check_caller(call: Call) -> None:
    """No principal, no cache."""
    if not call.principal.organisation:
        raise invalid(
            "context.principal.organisation", "is empty: without a principal there is no cache"
        )


def check_look_up(request: pb.LookUpRequest) -> None:
    """Raise INVALID_ARGUMENT for the first field that cannot be."""
    if not request.scope.model:
        raise invalid("scope.model", "is empty")
    if request.token and not 12 <= len(request.token) <= 32:
        raise invalid("token", "must have 12 to 32 bytes")
    if request.task.WhichOneof("task") is None:
        raise invalid("task", "is empty")
    if request.HasField("max_error_rate") and not 0 <= request.max_error_rate <= 1:
        raise invalid("max_error_rate", "must lie between 0 and 1")
    for name in ("max_age_ms", "full_price_microusd"):
        if getattr(request, name) < 0:
            raise invalid(name, "is negative")
    if request.embedder_revision and not request.vector:
        raise invalid("vector", "is empty, but embedder_revision is not")


def ready_vector(request: pb.LookUpRequest, embedder: Embedder) -> Floats | None:
    """The unit vector that a look-up carries; None where it carries none.

    Raises INVALID_ARGUMENT for one that cannot be compared.
    """
    if not request.vector:
        return None
    if request.embedder_revision != embedder.revision:
        raise invalid(
            "embedder_revision",
            f"is {request.embedder_revision!r}: this cache embeds with {embedder.revision!r}",
        )
    if len(request.vector) != embedder.width:
        raise invalid(
            "vector",
            f"has {len(request.vector)} numbers; {embedder.revision} makes {embedder.width}",
        )
    vector = np.array(request.vector, np.float32)
    norm = float(np.linalg.norm(vector))
    if not math.isfinite(norm) or norm == 0.0:
        raise invalid("vector", "has no direction")
    return np.asarray(vector / norm, np.float32)


def check_store(request: pb.StoreRequest) -> None:
    """Raise INVALID_ARGUMENT for the first field that cannot be."""
    for name in ("paid_microusd", "ttl_ms"):
        if getattr(request, name) < 0:
            raise invalid(name, "is negative")
    check_tags(request.tags, "tags")


def check_tags(tags: Iterable[str], field: str) -> None:
    """Control characters are the cache's own."""
    for at, tag in enumerate(tags):
        if "\x1f" in tag:
            raise invalid(f"{field}[{at}]", "has a control character")


def check_answers(request: pb.StoreAllRequest) -> None:
    """Raise INVALID_ARGUMENT for the first answer that cannot be: a batch is refused whole."""
    if len(request.answers) > MAX_ANSWERS:
        raise invalid("answers", f"are {len(request.answers)}: {MAX_ANSWERS} at most")
    for at, one in enumerate(request.answers):
        for name in ("scope.model", "task", "result"):
            if not (one.scope.model if name == "scope.model" else one.HasField(name)):
                raise invalid(f"answers[{at}].{name}", "is empty")
        if one.paid_microusd < 0:
            raise invalid(f"answers[{at}].paid_microusd", "is negative")
        check_tags(one.tags, f"answers[{at}].tags")
