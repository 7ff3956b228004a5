"""Answers and descriptions of models in the protocol's messages."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.model_server import Computed, Parameters, ServedModel
from penstock.rpc.errors import to_fault
from penstock.service.purity import pure

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
FINAL = "triton_final_response"
"""Parameter of a stream's response that says whether another one follows for the same request."""


@pure
def infer_response(
    request: kserve.ModelInferRequest, computed: Computed
) -> kserve.ModelInferResponse:
    """The response with its tensors as raw contents, as Triton sends them."""
    response = kserve.ModelInferResponse(
        model_name=request.model_name, model_version=computed.version, id=request.id
    )
    for tensor in computed.result.infer.outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.data)
    _set_parameters(response, computed.parameters)
    return response


@pure
def stream_response(response: kserve.ModelInferResponse) -> kserve.ModelStreamInferResponse:
    """An answer as the one response of its request on a stream."""
    streamed = kserve.ModelStreamInferResponse(infer_response=response)
    _set_parameters(streamed.infer_response, {FINAL: True})
    return streamed


def stream_failure(
    request: kserve.ModelInferRequest, error: Exception
) -> kserve.ModelStreamInferResponse:
    """A failure in the place of its request's answer, with the request's id."""
    empty = kserve.ModelInferResponse(id=request.id, model_name=request.model_name)
    _set_parameters(empty, {FINAL: True})
    return kserve.ModelStreamInferResponse(
        error_message=to_fault(error).message, infer_response=empty
    )


@pure
def metadata_of(model: ServedModel) -> kserve.ModelMetadataResponse:
    """A model's inputs and outputs."""
    return kserve.ModelMetadataResponse(
        name=model.name,
        versions=model.versions,
        platform=PLATFORM,
        inputs=_tensors(model.inputs),
        outputs=_tensors(model.outputs),
    )


@pure
def config_of(model: ServedModel) -> kserve.ModelConfig:
    """The configuration that Triton would derive. Shapes are whole, so `max_batch_size` is 0."""
    return kserve.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=BACKEND,
        default_model_filename=model.file,
        input=[
            kserve.ModelInput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)
            for spec in model.inputs
        ],
        output=[
            kserve.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)
            for spec in model.outputs
        ],
    )


def _tensors(
    specs: Iterable[inference_pb2.TensorSpec],
) -> list[kserve.ModelMetadataResponse.TensorMetadata]:
    tensor = kserve.ModelMetadataResponse.TensorMetadata
    return [tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs]


def _data_type(spec: inference_pb2.TensorSpec) -> kserve.DataType:
    """The enumeration's value; a type that the protocol does not have is TYPE_INVALID."""
    name = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype or 'INVALID'}"
    data_type: kserve.DataType = getattr(kserve, name)
    return data_type


def _set_parameters(response: kserve.ModelInferResponse, parameters: Parameters) -> None:
    for name, value in parameters.items():
        match value:
            case bool():
                response.parameters[name].bool_param = value
            case int():
                response.parameters[name].int64_param = value
            case float():
                response.parameters[name].double_param = value
            case str():
                response.parameters[name].string_param = value
