"""The protocol over both transports in one form, from its definition and not from our libraries:
gRPC by the protocol's stubs, HTTP by JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from penstock.api.kserve import inference_pb2 as pb
from penstock.api.kserve import inference_pb2_grpc
from penstock.bench.kserve.targets import Target
from penstock.rpc.peers.stream import open_channel

TIMEOUT_S = 30.0
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BAD, UNKNOWN, NO_KEY, LATE = "bad request", "unknown", "no credentials", "deadline"
OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: BAD,
    grpc.StatusCode.NOT_FOUND: UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED: NO_KEY,
    grpc.StatusCode.DEADLINE_EXCEEDED: LATE,
}
OF_STATUS = {400: BAD, 404: UNKNOWN, 401: NO_KEY, 504: LATE}
Json = dict[str, Any]


class Refused(Exception):
    """The request was refused; `kind` is the same over both transports."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


@dataclass
class Tensor:
    """An input; `data` in row-major order."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[int]
    parameters: Json = field(default_factory=dict)


@dataclass
class Ask:
    """A request to infer."""

    inputs: list[Tensor]
    model: str
    version: str = ""
    id: str = ""
    outputs: Sequence[str] = ()
    parameters: Json = field(default_factory=dict)
    raw: bool = False
    """Whether contents go, and come, as raw bytes."""


@dataclass
class Answer:
    """An answer; outputs by name as (datatype, shape, values)."""

    id: str
    model: str
    version: str
    outputs: dict[str, tuple[str, list[int], list[float]]]
    parameters: Json


class Client(Protocol):
    """The calls of the protocol; each raises Refused."""

    async def live(self) -> bool: ...
    async def ready(self) -> bool: ...
    async def server(self) -> Json: ...
    async def model_ready(self, name: str, version: str = "") -> bool: ...
    async def model(self, name: str, version: str = "") -> Json: ...
    async def config(self, name: str) -> Json: ...
    async def infer(self, ask: Ask) -> Answer: ...
    async def statistics(self, name: str) -> tuple[int, int]: ...
    async def index(self) -> list[tuple[str, str]]: ...
    async def load(self, name: str) -> None: ...
    async def unload(self, name: str) -> None: ...


def texts(rows: Sequence[Sequence[int]], model: str, **fields: Any) -> Ask:
    """A request for token ids, rows of equal length, all of which count."""
    shape = (len(rows), len(rows[0]))
    count = shape[0] * shape[1]
    columns = [[token for row in rows for token in row], [1] * count, [0] * count]
    tensors = [
        Tensor(name, "INT64", shape, data) for name, data in zip(INPUTS, columns, strict=True)
    ]
    return Ask(tensors, model, **fields)


class GrpcClient:
    """See Client."""

    def __init__(self, target: Target, with_key: bool = True) -> None:
        self.channel = open_channel(target.grpc)
        self._stub = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._metadata = tuple(target.headers.items()) if with_key else ()

    async def close(self) -> None:
        await self.channel.close()

    async def call(self, name: str, request: Any) -> Any:
        """Make a unary call."""
        method = getattr(self._stub, name)
        try:
            return await method(request, metadata=self._metadata, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Refused(
                OF_CODE.get(error.code(), error.code().name), error.details() or ""
            ) from None

    async def stream(self, asks: Sequence[Ask]) -> list[pb.ModelStreamInferResponse]:
        """The responses of one stream."""
        requests = [request_of(ask) for ask in asks]
        call = self._stub.ModelStreamInfer(
            iter(requests), metadata=self._metadata, timeout=TIMEOUT_S
        )
        return [response async for response in call]

    async def live(self) -> bool:
        return bool((await self.call("ServerLive", pb.ServerLiveRequest())).live)

    async def ready(self) -> bool:
        return bool((await self.call("ServerReady", pb.ServerReadyRequest())).ready)

    async def server(self) -> Json:
        told = await self.call("ServerMetadata", pb.ServerMetadataRequest())
        return {"name": told.name, "version": told.version, "extensions": list(told.extensions)}

    async def model_ready(self, name: str, version: str = "") -> bool:
        request = pb.ModelReadyRequest(name=name, version=version)
        return bool((await self.call("ModelReady", request)).ready)

    async def model(self, name: str, version: str = "") -> Json:
        told = await self.call("ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))
        return {
            "name": told.name,
            "versions": list(told.versions),
            "platform": told.platform,
            "inputs": [(each.name, each.datatype, list(each.shape)) for each in told.inputs],
            "outputs": [(each.name, each.datatype, list(each.shape)) for each in told.outputs],
        }

    async def config(self, name: str) -> Json:
        told = (await self.call("ModelConfig", pb.ModelConfigRequest(name=name))).config
        first = told.input[0]
        return {
            "name": told.name,
            "backend": told.backend,
            "input": (first.name, pb.DataType.Name(first.data_type), list(first.dims)),
        }

    async def infer(self, ask: Ask) -> Answer:
        return answer_of(await self.call("ModelInfer", request_of(ask)))

    async def statistics(self, name: str) -> tuple[int, int]:
        told = await self.call("ModelStatistics", pb.ModelStatisticsRequest(name=name))
        stats = told.model_stats[0].inference_stats
        return stats.success.count, stats.fail.count

    async def index(self) -> list[tuple[str, str]]:
        told = await self.call("RepositoryIndex", pb.RepositoryIndexRequest())
        return [(row.name, row.state) for row in told.models]

    async def load(self, name: str) -> None:
        await self.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))

    async def unload(self, name: str) -> None:
        await self.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name))


def request_of(ask: Ask) -> pb.ModelInferRequest:
    """The request over gRPC."""
    request = pb.ModelInferRequest(model_name=ask.model, model_version=ask.version, id=ask.id)
    _set(request.parameters, ask.parameters)
    for tensor in ask.inputs:
        made = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _set(made.parameters, tensor.parameters)
        if ask.raw:
            request.raw_input_contents.append(packed(tensor))
        else:
            made.contents.int64_contents.extend(tensor.data)
    for name in ask.outputs:
        request.outputs.add(name=name)
    return request


def packed(tensor: Tensor) -> bytes:
    """An INT64 tensor's raw contents."""
    return struct.pack(f"<{len(tensor.data)}q", *tensor.data)


def answer_of(response: pb.ModelInferResponse) -> Answer:
    """The answer over gRPC."""
    outputs = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        outputs[output.name] = (output.datatype, list(output.shape), values)
    parameters = {
        name: getattr(each, each.WhichOneof("parameter_choice") or "string_param")
        for name, each in response.parameters.items()
    }
    return Answer(response.id, response.model_name, response.model_version, outputs, parameters)


def _set(into: Any, parameters: Json) -> None:
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(into[name], kind, value)
