"""Requests of the Open Inference Protocol as a table: every datatype, typed and raw, and every way
to get one wrong.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.datatypes import DATATYPES, pack, unpack
from penstock.kserve.model_server import Computed, ServedModel
from penstock.kserve.requests import to_task
from penstock.kserve.responses import infer_response
from penstock.rpc.errors import Fault

Request = kserve.ModelInferRequest
Change = Callable[[Request], object]
TYPED: list[tuple[str, list[object]]] = [
    ("BOOL", [True, False, True]),
    ("INT8", [-128, 0, 127]),
    ("INT16", [-32768, 0, 32767]),
    ("INT32", [-(2**31), 0, 2**31 - 1]),
    ("INT64", [-(2**63), 0, 2**63 - 1]),
    ("UINT8", [0, 1, 255]),
    ("UINT16", [0, 1, 65535]),
    ("UINT32", [0, 1, 2**32 - 1]),
    ("UINT64", [0, 1, 2**64 - 1]),
    ("FP32", [-1.5, 0.0, 2.0**120]),
    ("FP64", [-1.5, 0.0, 1e300]),
    ("BYTES", [b"", b"a\x00b", "ø".encode()]),
]


def request(datatype: str, shape: list[int]) -> Request:
    made = Request(model_name="m", id="7")
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    return made


def model(datatype: str, *shape: int) -> ServedModel:
    spec = inference_pb2.TensorSpec(name="x", datatype=datatype, shape=shape or (-1, 3))
    return ServedModel("m", ("1",), (spec,), (spec,))


def data_of(made: Request, datatype: str) -> bytes:
    return to_task(made, model(datatype)).inputs[0].data


@pytest.mark.parametrize(("datatype", "values"), TYPED)
def test_typed_and_raw_contents_give_the_same_tensor(datatype: str, values: list[object]) -> None:
    typed = request(datatype, [1, 3])
    getattr(typed.inputs[0].contents, DATATYPES[datatype].field).extend(values)
    data = data_of(typed, datatype)
    assert unpack(DATATYPES[datatype], data, "x") == values
    raw = request(datatype, [1, 3])
    raw.raw_input_contents.append(data)
    assert data_of(raw, datatype) == data


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_sent_raw_and_has_no_typed_form(datatype: str) -> None:
    halves = struct.pack("<3H", 0x3FC0, 0xC000, 0x4040)
    made = request(datatype, [1, 3])
    made.raw_input_contents.append(halves)
    assert data_of(made, datatype) == halves
    typed = request(datatype, [1, 3])
    typed.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    with pytest.raises(Fault, match=r"inputs\[x\].datatype: .*raw_input_contents") as caught:
        data_of(typed, datatype)
    assert caught.value.code.name == "INVALID_ARGUMENT"


GOOD = array("f", [1.0] * 3).tobytes()
BAD: list[tuple[str, Change, str]] = [
    (
        "raw and typed",
        lambda r: (r.inputs[0].contents.fp32_contents.append(1), r.raw_input_contents.append(GOOD)),
        "inputs[x].contents",
    ),
    ("too few raw", lambda r: r.raw_input_contents.extend([GOOD, GOOD]), "raw_input_contents"),
    ("short bytes", lambda r: r.raw_input_contents.append(GOOD[:-1]), "inputs[x].data"),
    ("count", lambda r: r.inputs[0].contents.fp32_contents.extend([1, 2]), "inputs[x].data"),
    (
        "another field",
        lambda r: r.inputs[0].contents.int64_contents.extend([1, 2, 3]),
        "inputs[x].contents",
    ),
    ("datatype", lambda r: setattr(r.inputs[0], "datatype", "INT64"), "inputs[x].datatype"),
    ("nonsense datatype", lambda r: setattr(r.inputs[0], "datatype", "FP8"), "inputs[x].datatype"),
    ("unknown input", lambda r: setattr(r.inputs[0], "name", "y"), "inputs[y]"),
    ("no input", lambda r: r.ClearField("inputs"), "inputs[x]"),
    (
        "twice",
        lambda r: (r.raw_input_contents.extend([GOOD, GOOD]), r.inputs.append(r.inputs[0])),
        "inputs[x]",
    ),
    ("rank", lambda r: (_shape(r, 3), r.raw_input_contents.append(GOOD)), "inputs[x].shape"),
    (
        "negative",
        lambda r: (r.inputs[0].shape.append(-1), r.raw_input_contents.append(GOOD)),
        "inputs[x].shape",
    ),
    (
        "shared memory",
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "s"),
        "inputs[x].parameters",
    ),
    (
        "state",
        lambda r: setattr(r.parameters["sequence_id"], "int64_param", 7),
        "parameters.sequence_id",
    ),
    ("unknown output", lambda r: r.outputs.add(name="y"), "outputs[y]"),
    (
        "classification",
        lambda r: setattr(r.outputs.add(name="x").parameters["classification"], "int64_param", 3),
        "outputs[x].parameters",
    ),
]


def _shape(made: Request, *shape: int) -> None:
    made.inputs[0].ClearField("shape")
    made.inputs[0].shape.extend(shape)


@pytest.mark.parametrize(("change", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_does_not_fit_is_named(change: Change, field: str) -> None:
    made = request("FP32", [1, 3])
    change(made)
    with pytest.raises(Fault) as caught:
        to_task(made, model("FP32"))
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("UINT8", -1), ("INT32", 1.5), ("FP32", "1"), ("BOOL", 2), ("BYTES", 1)],
)
def test_a_value_that_its_datatype_does_not_hold_is_refused(datatype: str, value: object) -> None:
    with pytest.raises(Fault, match="contents"):
        pack(DATATYPES[datatype], [value], "inputs[x]")


def test_a_response_is_raw_and_keeps_the_id() -> None:
    result = inference_pb2.TaskResult()
    result.infer.outputs.add(name="y", datatype="FP32", shape=[1, 3], data=GOOD)
    answer = infer_response(request("FP32", []), Computed(result, "1", {"paid_microusd": 5}))
    assert (answer.id, answer.model_version) == ("7", "1")
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == ("FP32", [1, 3])
    assert list(answer.raw_output_contents) == [GOOD]
    assert answer.parameters["paid_microusd"].int64_param == 5
