"""Instances as they register."""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.settings import RouterSettings

SETTINGS = RouterSettings(lease_ms=60_000)
LOAD = common_pb2.LoadReport(in_flight=3, concurrency=4)
LOADING = inference_pb2.MODEL_STATE_LOADING


def model(
    name: str, state: inference_pb2.ModelState = inference_pb2.MODEL_STATE_READY
) -> inference_pb2.Model:
    """A model in this state."""
    return inference_pb2.Model(name=name, state=state)


def instance(name: str = "a", **changes: object) -> pb.Instance:
    """An instance of the model `m` with two slots, but for these fields."""
    fields: dict[str, object] = {
        "address": "127.0.0.1:1",
        "models": [model("m")],
        "concurrency": 2,
        **changes,
    }
    return pb.Instance(id=name, **fields)  # type: ignore[arg-type]
