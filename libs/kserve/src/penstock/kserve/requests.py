"""A request of the protocol as a task: checked against the model's inputs, with raw contents.

Error texts are those of Triton where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.datatypes import check_size, known_datatype, pack
from penstock.kserve.model_server import ServedModel
from penstock.rpc.errors import Fault, invalid
from penstock.service.purity import pure

InputTensor = kserve.ModelInferRequest.InferInputTensor
Specs = Mapping[str, inference_pb2.TensorSpec]
UNSUPPORTED_OUTPUT_PARAMETERS = ("shared_memory_region", "classification")
SEQUENCE_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")
TIMEOUT = "timeout"


@pure
def to_task(request: kserve.ModelInferRequest, model: ServedModel) -> inference_pb2.InferTask:
    """The task of a request.

    Raises:
        Fault: INVALID_ARGUMENT naming the input, output or parameter.
    """
    _check_parameters(request)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            "raw_input_contents", f"has {len(raw)} elements for {len(request.inputs)} inputs"
        )
    specs = {spec.name: spec for spec in model.inputs}
    task = inference_pb2.InferTask(outputs=_outputs(request, model))
    seen: set[str] = set()
    for index, tensor in enumerate(request.inputs):
        _check_name(tensor.name, specs, seen, request.model_name)
        seen.add(tensor.name)
        data = _contents(tensor, raw[index] if raw else None, specs[tensor.name])
        task.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data)
    missing = next((name for name in specs if name not in seen), None)
    if missing is not None:
        message = f"expected {len(specs)} inputs but got {len(seen)}"
        raise invalid(f"inputs[{missing}]", message)
    return task


@pure
def timeout_s(request: kserve.ModelInferRequest) -> float | None:
    """How long the request's own parameter says that it may take, which is in microseconds."""
    if TIMEOUT not in request.parameters:
        return None
    parameter = request.parameters[TIMEOUT]
    chosen = parameter.WhichOneof("parameter_choice")
    if chosen not in ("int64_param", "uint64_param", "string_param"):
        raise invalid(f"parameters.{TIMEOUT}", "must be a whole number of microseconds")
    try:
        microseconds = int(getattr(parameter, chosen))
    except ValueError:
        raise invalid(f"parameters.{TIMEOUT}", "is not a number of microseconds") from None
    return microseconds / 1e6 if microseconds > 0 else None


@pure
def rows_of(request: kserve.ModelInferRequest) -> int:
    """Rows of a request: the largest first dimension of its inputs."""
    return max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)


@pure
def in_protocol_words(fault: Fault) -> Fault:
    """A fault of a task with the field as the protocol has it: `task.infer.inputs` is `inputs`."""
    for prefix in ("task.infer.", "task."):
        if fault.field.startswith(prefix):
            field = fault.field.removeprefix(prefix)
            message = fault.message.replace(fault.field, field)
            return Fault(fault.reason, message, field=field, retry_after_s=fault.retry_after_s)
    return fault


def _check_parameters(request: kserve.ModelInferRequest) -> None:
    """Refuse what would change the answer and is not served: a sequence's requests depend on each
    other.
    """
    for name in SEQUENCE_PARAMETERS:
        if name in request.parameters:
            raise invalid(f"parameters.{name}", "models with a state are not served here")


def _check_name(name: str, specs: Specs, seen: set[str], model: str) -> None:
    """Refuse an input that the model does not have or that was given before."""
    if name not in specs:
        known = ", ".join(specs)
        message = f"unexpected inference input for model '{model}'; it has {known}"
        raise invalid(f"inputs[{name}]", message)
    if name in seen:
        raise invalid(f"inputs[{name}]", "is given twice")


def _contents(tensor: InputTensor, raw: bytes | None, spec: inference_pb2.TensorSpec) -> bytes:
    """The raw contents of one input, from its raw bytes or else its typed contents."""
    field = f"inputs[{tensor.name}]"
    datatype = known_datatype(tensor.datatype, field)
    if tensor.datatype != spec.datatype:
        message = f"data-type is '{tensor.datatype}', but the model expects '{spec.datatype}'"
        raise invalid(f"{field}.datatype", message)
    if "shared_memory_region" in tensor.parameters:
        raise invalid(f"{field}.parameters", "shared memory is not served here; send the contents")
    if not _has_shape(tensor.shape, spec.shape):
        message = f"is {list(tensor.shape)}; the model's input is {list(spec.shape)}"
        raise invalid(f"{field}.shape", message)
    if raw is None:
        raw = pack(datatype, _typed(tensor, datatype.field, field), field)
    elif tensor.HasField("contents") and tensor.contents.ListFields():
        raise invalid(f"{field}.contents", "must not be given together with raw_input_contents")
    check_size(datatype, tensor.shape, raw, field)
    return raw


def _typed(tensor: InputTensor, wanted: str, field: str) -> Sequence[object]:
    """The values of typed contents, which must stand in the field of their datatype."""
    filled = [other.name for other, _ in tensor.contents.ListFields() if other.name != wanted]
    if wanted and filled:
        message = f"{tensor.datatype} belongs in {wanted}, but {filled[0]} is filled"
        raise invalid(f"{field}.contents", message)
    values: Sequence[object] = getattr(tensor.contents, wanted) if wanted else ()
    return values


def _has_shape(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is that of the model, where a size of -1 may vary."""
    if len(shape) != len(wanted):
        return False
    return all(size in (-1, actual) for size, actual in zip(wanted, shape, strict=True))


def _outputs(request: kserve.ModelInferRequest, model: ServedModel) -> list[str]:
    """The outputs that the request names, each of which the model has."""
    known = {spec.name for spec in model.outputs}
    for output in request.outputs:
        field = f"outputs[{output.name}]"
        if output.name not in known:
            raise invalid(field, f"unexpected inference output for model '{request.model_name}'")
        for parameter in UNSUPPORTED_OUTPUT_PARAMETERS:
            if parameter in output.parameters:
                raise invalid(f"{field}.parameters", f"{parameter} is not served here")
    return [output.name for output in request.outputs]
