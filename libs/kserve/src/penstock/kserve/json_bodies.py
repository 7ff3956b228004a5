"""Bodies of the protocol over HTTP: JSON, and after it the binary contents of tensors.

A tensor's values stand in the JSON (`data`, flat or nested), or as raw contents behind it in the
order of the tensors, with their length in the parameter `binary_data_size`. The header
`Inference-Header-Content-Length` says where the JSON ends (Triton's binary tensor data extension).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf.message import Message
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.datatypes import BYTES, Value, known_datatype, pack, unpack
from penstock.rpc.errors import invalid
from penstock.service.purity import pure
from pydantic import BaseModel, ConfigDict, ValidationError

SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
INT64_MAX = (1 << 63) - 1
ParameterJson = bool | int | float | str


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    name: str
    parameters: dict[str, ParameterJson] = {}


class InputJson(_Part):
    """An input in JSON."""

    datatype: str
    shape: list[int]
    data: list[Any] | None = None


class InferJson(BaseModel):
    """An infer request in JSON."""

    model_config = ConfigDict(strict=True, extra="ignore")
    id: str = ""
    parameters: dict[str, ParameterJson] = {}
    inputs: list[InputJson]
    outputs: list[_Part] = []


class ReadRequest(NamedTuple):
    """A request, and the outputs whose contents its response has as binary data."""

    request: kserve.ModelInferRequest
    binary_outputs: frozenset[str]
    all_binary: bool

    def wants_binary(self, output: str) -> bool:
        """Whether an output's contents are to be binary."""
        return self.all_binary or output in self.binary_outputs


@pure
def read_infer(body: bytes, json_bytes: int, model: str, version: str) -> ReadRequest:
    """An infer request.

    Args:
        json_bytes: length of the JSON at the beginning of the body.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
    """
    if not 0 <= json_bytes <= len(body):
        raise invalid(
            "Inference-Header-Content-Length", f"is {json_bytes}; the body has {len(body)} bytes"
        )
    said = _parsed(body[:json_bytes])
    request = kserve.ModelInferRequest(model_name=model, model_version=version, id=said.id)
    _set(request.parameters, said.parameters)
    rest = memoryview(body)[json_bytes:]
    for tensor in said.inputs:
        field = f"inputs[{tensor.name}]"
        made = request.inputs.add(name=tensor.name, datatype=tensor.datatype)
        made.shape.extend(_sizes(tensor.shape, field))
        _set(made.parameters, {k: v for k, v in tensor.parameters.items() if k != SIZE})
        data, rest = _contents(tensor, rest, field)
        request.raw_input_contents.append(data)
    if rest:
        raise invalid("inputs", f"leave {len(rest)} bytes of binary data that belong to none")
    for output in said.outputs:
        asked = request.outputs.add(name=output.name)
        _set(asked.parameters, {k: v for k, v in output.parameters.items() if k != BINARY})
    binary = frozenset(each.name for each in said.outputs if each.parameters.get(BINARY) is True)
    return ReadRequest(request, binary, said.parameters.get(ALL_BINARY) is True)


@pure
def write_infer(response: kserve.ModelInferResponse, read: ReadRequest) -> tuple[bytes, int]:
    """The body of a response, and the length of its JSON; the rest is binary data.

    Raises:
        Fault: an output's values have no JSON form.
    """
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for tensor, data in zip(response.outputs, response.raw_output_contents, strict=True):
        row: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if read.wants_binary(tensor.name):
            row["parameters"] = {SIZE: len(data)}
            binary.append(data)
        else:
            row["data"] = _values(tensor.name, tensor.datatype, data)
        outputs.append(row)
    head = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        head["id"] = response.id
    parameters = {name: parameter_value(each) for name, each in response.parameters.items()}
    text = _json({**head, "parameters": parameters, "outputs": outputs})
    return b"".join([text, *binary]), len(text)


@pure
def to_json(message: Message) -> dict[str, Any]:
    """A message as JSON with every field; unlike protobuf's own form, with numbers as numbers."""
    written: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:
            if field.is_repeated:
                written[field.name] = [to_json(item) for item in value]
            elif message.HasField(field.name):
                written[field.name] = to_json(value)
        elif field.enum_type is not None:
            written[field.name] = field.enum_type.values_by_number[value].name
        else:
            written[field.name] = list(value) if field.is_repeated else value
    return written


@pure
def parameter_value(parameter: kserve.InferParameter) -> ParameterJson:
    """The value of a parameter."""
    chosen = parameter.WhichOneof("parameter_choice")
    value: ParameterJson = getattr(parameter, chosen) if chosen else ""
    return value


def _parsed(body: bytes) -> InferJson:
    try:
        return InferJson.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise invalid(field, first["msg"]) from None
    except (ValueError, RecursionError):
        raise invalid("", "the body is not JSON") from None


def _sizes(shape: Sequence[int], field: str) -> Sequence[int]:
    if any(not 0 <= size <= INT64_MAX for size in shape):
        raise invalid(f"{field}.shape", "has a size that is negative or too large")
    return shape


def _contents(tensor: InputJson, rest: memoryview, field: str) -> tuple[bytes, memoryview]:
    """The raw contents of an input, and the binary data that is left for the others."""
    size = tensor.parameters.get(SIZE)
    if size is None:
        if tensor.data is None:
            raise invalid(f"{field}.data", f"is missing, and so is the parameter {SIZE}")
        return pack(known_datatype(tensor.datatype, field), _flat(tensor.data, field), field), rest
    if tensor.data is not None:
        raise invalid(f"{field}.data", f"must not be given together with {SIZE}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise invalid(f"{field}.parameters.{SIZE}", f"is {size!r}; {len(rest)} bytes are left")
    return bytes(rest[:size]), rest[size:]


def _flat(data: list[Any], field: str) -> list[Any]:
    """Nested values in row-major order."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise invalid(f"{field}.data", "mixes values and lists")
        data = list(chain.from_iterable(data))
    return data


def _values(name: str, datatype: str, data: bytes) -> list[Value | str]:
    field = f"outputs[{name}]"
    values = unpack(known_datatype(datatype, field), data, field)
    if datatype != BYTES:
        return list(values)
    try:
        return [value.decode() for value in values if isinstance(value, bytes)]
    except UnicodeDecodeError:
        raise invalid(field, "is not UTF-8, so it has no JSON form; ask for binary data") from None


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise invalid(
            "outputs", "have NaN or infinite values, which have no JSON form; ask for binary data"
        ) from None


def _set(into: Any, parameters: Mapping[str, ParameterJson]) -> None:
    """Write parameters into a message's map."""
    for name, value in parameters.items():
        match value:
            case bool():
                into[name].bool_param = value
            case int() if -INT64_MAX - 1 <= value <= INT64_MAX:
                into[name].int64_param = value
            case int():
                raise invalid(f"parameters.{name}", "is too large a number")
            case float():
                into[name].double_param = value
            case str():
                into[name].string_param = value
