"""KServe v2 messages to arrays and back.

Plain values only: no model runs and nothing is sent here.
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

TYPED: dict[str, str] = {
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
"""The field that holds typed elements; FP16 and BF16 have none and travel raw only."""

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


def arrays(
    request: kserve.ModelInferRequest, specs: Sequence[TensorSpec], most_rows: int, most_bytes: int
) -> dict[str, Array]:
    """The arrays of a request by input name, checked against what the model takes.

    Raises:
        Fault: INVALID_ARGUMENT naming the input.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            "raw_input_contents", f"has {len(raw)} elements for {len(request.inputs)} inputs"
        )
    wanted = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    total = 0
    for index, tensor in enumerate(request.inputs):
        field = f"inputs[{tensor.name}]"
        if tensor.name not in wanted:
            known = ", ".join(wanted)
            raise invalid(
                field,
                f"unexpected inference input for model '{request.model_name}'; it has {known}",
            )
        if tensor.name in found:
            raise invalid(field, "is given twice")
        expected = DATATYPE_OF.get(wanted[tensor.name].type, "")
        if tensor.datatype in tensors.DTYPES and tensor.datatype != expected:
            raise invalid(
                f"{field}.datatype",
                f"data-type is '{tensor.datatype}', but the model expects '{expected}'",
            )
        array = _array(tensor, raw[index] if raw else None, field)
        found[tensor.name] = tensors.fit(array, wanted[tensor.name], field)
        total += len(raw[index]) if raw else array.nbytes
        if array.ndim and array.shape[0] > most_rows:
            raise invalid(f"{field}.shape", f"inference request batch-size must be <= {most_rows}")
        if total > most_bytes:
            raise invalid(field, f"the request's tensors take more than {most_bytes} bytes")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise invalid(
            f"inputs[{missing[0]}]", f"expected {len(wanted)} inputs but got {len(found)}"
        )
    return found


def _array(
    tensor: kserve.ModelInferRequest.InferInputTensor, raw: bytes | None, field: str
) -> Array:
    if "shared_memory_region" in tensor.parameters:
        raise invalid(f"{field}.parameters", "shared memory is not served here; send the contents")
    if raw is None:
        return decode_typed_contents(tensor.datatype, tuple(tensor.shape), tensor.contents, field)
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise invalid(f"{field}.contents", "must not be given together with raw_input_contents")
    return tensors.decode(tensor.datatype, tuple(tensor.shape), raw, field)


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
    name = TYPED.get(datatype)
    if name is None:
        raise invalid(
            f"{field}.datatype",
            f"{datatype!r} is not known; use one of {', '.join(TYPED)}, FP16, BF16",
        )
    stray = [filled.name for filled, _ in contents.ListFields() if filled.name != name]
    if stray:
        raise invalid(
            f"{field}.contents", f"{datatype} belongs in {name}, but {stray[0]} is filled"
        )
    values = getattr(contents, name)
    if any(size < 0 for size in shape) or math.prod(shape) != len(values):
        raise invalid(f"{field}.shape", f"{list(shape)} does not fit {len(values)} elements")
    if datatype == "BYTES":
        strings = np.empty(len(values), dtype=np.object_)
        strings[:] = list(values)
        return strings.reshape(shape)
    return _narrowed(np.array(values), np.dtype(tensors.DTYPES[datatype]), field).reshape(shape)


def _narrowed(values: Array, dtype: np.dtype[Any], field: str) -> Array:
    if dtype.kind in "iu" and values.size:
        bounds = np.iinfo(dtype)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise invalid(f"{field}.contents", f"has a value outside {bounds.min} to {bounds.max}")
    array = values.astype(dtype)
    tensors.check_finite(array, f"{field}.contents")
    return array


def outputs(request: kserve.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[str]:
    """Names of the outputs asked for; all of the model's where none is named.

    Raises:
        Fault: INVALID_ARGUMENT naming the output that the model does not have, or a parameter that
            is not served.
    """
    known = [spec.name for spec in specs]
    for output in request.outputs:
        field = f"outputs[{output.name}]"
        if output.name not in known:
            raise invalid(field, f"unexpected inference output for model '{request.model_name}'")
        for parameter in ("shared_memory_region", "classification"):
            if parameter in output.parameters:
                raise invalid(f"{field}.parameters", f"{parameter} is not served here")
    return [output.name for output in request.outputs] or known


def response(
    request: kserve.ModelInferRequest,
    version: str,
    answers: Mapping[str, Array],
    specs: Sequence[TensorSpec],
) -> kserve.ModelInferResponse:
    """The answer, with raw contents as Triton sends them."""
    answer = kserve.ModelInferResponse(
        model_name=request.model_name, model_version=version, id=request.id
    )
    kinds = {spec.name: spec.type for spec in specs}
    for name, array in answers.items():
        datatype, data = tensors.encode(array, kinds[name])
        answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        answer.raw_output_contents.append(data)
    return answer


def metadata(specs: Sequence[TensorSpec]) -> list[kserve.ModelMetadataResponse.TensorMetadata]:
    """What a model takes or gives; -1 stands for a size that may vary."""
    kind = kserve.ModelMetadataResponse.TensorMetadata
    return [
        kind(name=spec.name, datatype=DATATYPE_OF[spec.type], shape=_dims(spec)) for spec in specs
    ]


def config(
    name: str, file: str, takes: Sequence[TensorSpec], gives: Sequence[TensorSpec]
) -> kserve.ModelConfig:
    """The configuration that Triton would derive; shapes are whole, so `max_batch_size` is 0."""
    return kserve.ModelConfig(
        name=name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename=file,
        input=[
            kserve.ModelInput(name=spec.name, data_type=_type(spec), dims=_dims(spec))
            for spec in takes
        ],
        output=[
            kserve.ModelOutput(name=spec.name, data_type=_type(spec), dims=_dims(spec))
            for spec in gives
        ],
    )


def _dims(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]


def _type(spec: TensorSpec) -> kserve.DataType:
    name = DATATYPE_OF[spec.type]
    chosen: kserve.DataType = getattr(kserve, "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}")
    return chosen
