"""`GET /v1/models` and `/v1/models/{id}`: a form for OpenAI's and Anthropic's clients. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from penstock.api.router.v1 import router_pb2
from penstock.edge.json_fields import Json
from penstock.service.purity import pure

CREATED_AT = "1970-01-01T00:00:00Z"
"""When a model was made is not known."""


@pure
def models_body(models: Sequence[router_pb2.AvailableModel]) -> bytes:
    """The body of the list."""
    names = sorted(model.name for model in models)
    return orjson.dumps(
        {
            "object": "list",
            "data": [_model(name) for name in names],
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }
    )


@pure
def model_body(models: Sequence[router_pb2.AvailableModel], name: str) -> bytes | None:
    """The body of one model; None where there is none of that name."""
    return orjson.dumps(_model(name)) if any(model.name == name for model in models) else None


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "penstock",
        "type": "model",
        "display_name": name,
        "created_at": CREATED_AT,
        "lifecycle": "active",
    }
