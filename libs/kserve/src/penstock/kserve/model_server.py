"""What a service must be able to do to be served by the protocol: the one interface between it and
whatever runs the models.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call

Trailer = Sequence[tuple[str, str | bytes]]
Parameters = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready: its tensors, where a size of -1 may vary."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[inference_pb2.TensorSpec, ...]
    outputs: tuple[inference_pb2.TensorSpec, ...]
    file: str = ""


class Computed(NamedTuple):
    """An answer: its tensors, who gave it, and what its response says besides."""

    result: inference_pb2.TaskResult
    version: str
    parameters: Parameters = MappingProxyType({})


class ModelServer(Protocol):
    """Runs models."""

    @property
    def version(self) -> str:
        """Of the server, for its metadata."""
        ...

    @property
    def extensions(self) -> Sequence[str]:
        """Extensions of the protocol that are served."""
        ...

    def caller(self, metadata: Metadata) -> Call | Awaitable[Call]:
        """The Call of whoever sent this metadata.

        Raises:
            Fault: UNAUTHENTICATED.
        """
        ...

    def models(self, call: Call) -> Sequence[ServedModel]:
        """Every model that is ready and that the caller may see."""
        ...

    def model(self, name: str, version: str, call: Call) -> ServedModel:
        """A model that is ready and that the caller may see, in that version where one is named.

        Raises:
            Fault: NOT_FOUND, or INVALID_ARGUMENT where it takes no tensors.
        """
        ...

    async def infer(
        self, request: kserve.ModelInferRequest, task: inference_pb2.InferTask, call: Call
    ) -> Computed:
        """Compute a task on the request's model.

        Raises:
            Fault: it cannot be computed, or not now.
        """
        ...

    def index(self, call: Call) -> Sequence[kserve.RepositoryIndexResponse.ModelIndex]:
        """Every model that the caller may see, ready or not."""
        ...

    async def load(self, name: str) -> None:
        """Load a model's highest version; raises Fault."""
        ...

    async def unload(self, name: str) -> None:
        """Unload a model; one that is not loaded is no error. Raises Fault."""
        ...

    def trailer(self) -> Trailer:
        """Metadata that follows an answer over gRPC."""
        ...
