"""Messages of the Open Inference Protocol (KServe v2) to arrays and back.

Plain values: no model runs here and nothing is sent. Error texts are those of Triton where it has
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from penstock.api.kserve import inference_pb2 as kserve
from penstock.inference_onnx_quantized import tensors
from penstock.onnx.session import Array, TensorSpec
from penstock.rpc.errors import invalid

TYPED_FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that holds typed elements of a datatype; FP16 and BF16 have none."""

DATATYPE_OF = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(int16)": "INT16",
    "tensor(int8)": "INT8",
    "tensor(uint64)": "UINT64",
    "tensor(uint32)": "UINT32",
    "tensor(uint16)": "UINT16",
    "tensor(uint8)": "UINT8",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
"""The datatype of an onnxruntime type."""

InputTensor = kserve.ModelInferRequest.InferInputTensor
UNSUPPORTED_OUTPUT_PARAMETERS = ("shared_memory_region", "classification")


def input_arrays(
    request: kserve.ModelInferRequest, specs: Sequence[TensorSpec], max_rows: int, max_bytes: int
) -> dict[str, Array]:
    """The arrays of a request by input name, checked against the model's inputs.

    Raises:
        Fault: INVALID_ARGUMENT naming the input.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            "raw_input_contents", f"has {len(raw)} elements for {len(request.inputs)} inputs"
        )
    inputs = {spec.name: spec for spec in specs}
    arrays: dict[str, Array] = {}
    total_bytes = 0
    for index, tensor in enumerate(request.inputs):
        field = f"inputs[{tensor.name}]"
        _check_name(tensor.name, inputs, arrays, request.model_name)
        array = _array(tensor, raw[index] if raw else None, inputs[tensor.name])
        arrays[tensor.name] = array
        total_bytes += len(raw[index]) if raw else array.nbytes
        if array.ndim and array.shape[0] > max_rows:
            raise invalid(f"{field}.shape", f"inference request batch-size must be <= {max_rows}")
        if total_bytes > max_bytes:
            raise invalid(field, f"the request's tensors take more than {max_bytes} bytes")
    missing = next((name for name in inputs if name not in arrays), None)
    if missing is not None:
        message = f"expected {len(inputs)} inputs but got {len(arrays)}"
        raise invalid(f"inputs[{missing}]", message)
    return arrays


def _check_name(
    name: str, inputs: Mapping[str, TensorSpec], arrays: Mapping[str, Array], model: str
) -> None:
    """Refuse an input that the model does not have or that was given before."""
    if name not in inputs:
        known = ", ".join(inputs)
        message = f"unexpected inference input for model '{model}'; it has {known}"
        raise invalid(f"inputs[{name}]", message)
    if name in arrays:
        raise invalid(f"inputs[{name}]", "is given twice")


def _array(tensor: InputTensor, raw: bytes | None, spec: TensorSpec) -> Array:
    """The array of one input, from its raw bytes or else its typed contents."""
    field = f"inputs[{tensor.name}]"
    expected = DATATYPE_OF.get(spec.type, "")
    if tensor.datatype in tensors.NUMPY_DTYPES and tensor.datatype != expected:
        message = f"data-type is '{tensor.datatype}', but the model expects '{expected}'"
        raise invalid(f"{field}.datatype", message)
    if "shared_memory_region" in tensor.parameters:
        raise invalid(f"{field}.parameters", "shared memory is not served here; send the contents")
    shape = tuple(tensor.shape)
    if raw is None:
        array = decode_typed_contents(tensor.datatype, shape, tensor.contents, field)
    elif tensor.HasField("contents") and tensor.contents.ListFields():
        raise invalid(f"{field}.contents", "must not be given together with raw_input_contents")
    else:
        array = tensors.decode(tensor.datatype, shape, raw, field)
    return tensors.match_spec(array, spec, field)


def decode_typed_contents(
    datatype: str, shape: Sequence[int], contents: kserve.InferTensorContents, field: str
) -> Array:
    """The array of typed contents.

    Raises:
        Fault: INVALID_ARGUMENT: FP16 and BF16 have no typed form; another type's field is filled;
            count or range does not fit.
    """
    if datatype in tensors.RAW_ONLY:
        raise invalid(
            f"{field}.datatype", f"{datatype} has no typed contents; send raw_input_contents"
        )
    name = TYPED_FIELDS.get(datatype)
    if name is None:
        known = ", ".join(TYPED_FIELDS)
        message = f"{datatype!r} is not known; use one of {known}, FP16, BF16"
        raise invalid(f"{field}.datatype", message)
    filled = [other.name for other, _ in contents.ListFields() if other.name != name]
    if filled:
        message = f"{datatype} belongs in {name}, but {filled[0]} is filled"
        raise invalid(f"{field}.contents", message)
    values = getattr(contents, name)
    if any(size < 0 for size in shape) or math.prod(shape) != len(values):
        raise invalid(f"{field}.shape", f"{list(shape)} does not fit {len(values)} elements")
    if datatype == "BYTES":
        strings = np.empty(len(values), dtype=np.object_)
        strings[:] = list(values)
        return strings.reshape(shape)
    dtype = np.dtype(tensors.NUMPY_DTYPES[datatype])
    return _narrowed(np.array(values), dtype, field).reshape(shape)


def _narrowed(values: Array, dtype: np.dtype[Any], field: str) -> Array:
    """The values in a narrower type; refuses those that it does not hold."""
    if dtype.kind in "iu" and values.size:
        bounds = np.iinfo(dtype)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise invalid(f"{field}.contents", f"has a value outside {bounds.min} to {bounds.max}")
    array = values.astype(dtype)
    tensors.check_finite(array, f"{field}.contents")
    return array


def output_names(request: kserve.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[str]:
    """The outputs that the request names; all of the model's where it names none.

    Raises:
        Fault: INVALID_ARGUMENT naming an output that the model does not have, or a parameter that
            is not served.
    """
    known = [spec.name for spec in specs]
    for output in request.outputs:
        field = f"outputs[{output.name}]"
        if output.name not in known:
            raise invalid(field, f"unexpected inference output for model '{request.model_name}'")
        for parameter in UNSUPPORTED_OUTPUT_PARAMETERS:
            if parameter in output.parameters:
                raise invalid(f"{field}.parameters", f"{parameter} is not served here")
    return [output.name for output in request.outputs] or known


def infer_response(
    request: kserve.ModelInferRequest,
    version: str,
    arrays: Mapping[str, Array],
    specs: Sequence[TensorSpec],
) -> kserve.ModelInferResponse:
    """The response with the output arrays as raw contents, as Triton sends them."""
    response = kserve.ModelInferResponse(
        model_name=request.model_name, model_version=version, id=request.id
    )
    types = {spec.name: spec.type for spec in specs}
    for name, array in arrays.items():
        datatype, data = tensors.encode(array, types[name])
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(data)
    return response


def tensor_metadata(
    specs: Sequence[TensorSpec],
) -> list[kserve.ModelMetadataResponse.TensorMetadata]:
    """A model's inputs or outputs; -1 stands for a size that may vary."""
    metadata = kserve.ModelMetadataResponse.TensorMetadata
    return [
        metadata(name=spec.name, datatype=DATATYPE_OF[spec.type], shape=_dims(spec))
        for spec in specs
    ]


def model_config(
    name: str, file: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> kserve.ModelConfig:
    """The configuration that Triton would derive. Shapes are whole, so `max_batch_size` is 0."""
    return kserve.ModelConfig(
        name=name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename=file,
        input=[
            kserve.ModelInput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec))
            for spec in inputs
        ],
        output=[
            kserve.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec))
            for spec in outputs
        ],
    )


def _dims(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]


def _data_type(spec: TensorSpec) -> kserve.DataType:
    name = DATATYPE_OF[spec.type]
    data_type: kserve.DataType = getattr(
        kserve, "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"
    )
    return data_type
