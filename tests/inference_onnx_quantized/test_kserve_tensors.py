"""Tensors of the Open Inference Protocol as a table: every datatype, typed and raw, and every way
to get one wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from penstock.api.kserve import inference_pb2 as kserve
from penstock.inference_onnx_quantized import tensors
from penstock.inference_onnx_quantized.api import kserve_tensors
from penstock.onnx.session import TensorSpec
from penstock.rpc.errors import Fault

Request = kserve.ModelInferRequest
Change = Callable[[Request], object]
TYPED = [
    ("BOOL", "tensor(bool)", [True, False, True]),
    ("INT8", "tensor(int8)", [-128, 0, 127]),
    ("INT16", "tensor(int16)", [-32768, 0, 32767]),
    ("INT32", "tensor(int32)", [-(2**31), 0, 2**31 - 1]),
    ("INT64", "tensor(int64)", [-(2**63), 0, 2**63 - 1]),
    ("UINT8", "tensor(uint8)", [0, 1, 255]),
    ("UINT16", "tensor(uint16)", [0, 1, 65535]),
    ("UINT32", "tensor(uint32)", [0, 1, 2**32 - 1]),
    ("UINT64", "tensor(uint64)", [0, 1, 2**64 - 1]),
    ("FP32", "tensor(float)", [-1.5, 0.0, 2.0**120]),
    ("FP64", "tensor(double)", [-1.5, 0.0, 1e300]),
    ("BYTES", "tensor(string)", [b"", b"a\x00b", "ø".encode()]),
]


def request(datatype: str, shape: list[int]) -> Request:
    made = Request(model_name="m", id="7")
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    return made


def spec(kind: str, *shape: int | None) -> TensorSpec:
    return TensorSpec("x", kind, shape or (None, 3))


@pytest.mark.parametrize(("datatype", "kind", "values"), TYPED)
def test_typed_and_raw_contents_give_the_same_array(
    datatype: str, kind: str, values: list[object]
) -> None:
    typed = request(datatype, [1, 3])
    getattr(typed.inputs[0].contents, kserve_tensors.TYPED_FIELDS[datatype]).extend(values)
    array = kserve_tensors.input_arrays(typed, [spec(kind)], 8, 1 << 20)["x"]
    assert array.ravel().tolist() == [
        item.decode() if isinstance(item, bytes) else item for item in values
    ]
    raw = request(datatype, [1, 3])
    name, data = tensors.encode(array)
    assert name == datatype
    raw.raw_input_contents.append(data)
    again = kserve_tensors.input_arrays(raw, [spec(kind)], 8, 1 << 20)["x"]
    assert (again.tolist(), again.dtype) == (array.tolist(), array.dtype)


def test_half_precision_is_sent_raw() -> None:
    half = np.array([1.5, -2.0, 65504], dtype=np.float16)
    made = request("FP16", [1, 3])
    made.raw_input_contents.append(half.tobytes())
    assert (
        kserve_tensors.input_arrays(made, [spec("tensor(float16)")], 8, 99)["x"].ravel().tolist()
        == half.tolist()
    )
    brain = b"".join(struct.pack("<f", value)[2:] for value in (1.5, -2.0, 3.0))
    assert tensors.decode("BF16", [3], brain, "x").tolist() == [1.5, -2.0, 3.0]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_form(datatype: str) -> None:
    contents = kserve.InferTensorContents(fp32_contents=[1, 2, 3])
    with pytest.raises(Fault, match=r"inputs\[x\].datatype: .*raw_input_contents") as caught:
        kserve_tensors.decode_typed_contents(datatype, [3], contents, "inputs[x]")
    assert caught.value.code.name == "INVALID_ARGUMENT"


NAN = np.array([1, float("nan"), 3], dtype=np.float32).tobytes()
GOOD = np.ones(3, dtype=np.float32).tobytes()
BAD: list[tuple[str, Change, str]] = [
    (
        "raw and typed",
        lambda r: (r.inputs[0].contents.fp32_contents.append(1), r.raw_input_contents.append(GOOD)),
        "con",
    ),
    ("too few raw", lambda r: r.raw_input_contents.extend([GOOD, GOOD]), "raw_input_contents"),
    ("short bytes", lambda r: r.raw_input_contents.append(GOOD[:-1]), "inputs[x].data"),
    ("NaN", lambda r: r.raw_input_contents.append(NAN), "inputs[x].data"),
    (
        "typed NaN",
        lambda r: r.inputs[0].contents.fp32_contents.extend([1, 2, float("inf")]),
        "inputs[x].contents",
    ),
    ("count", lambda r: r.inputs[0].contents.fp32_contents.extend([1, 2]), "inputs[x].shape"),
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
    ("rows", lambda r: (_shape(r, 9, 3), r.raw_input_contents.append(GOOD * 9)), "inputs[x].shape"),
    ("bytes", lambda r: (_shape(r, 8, 3), r.raw_input_contents.append(GOOD * 8)), "inputs[x]"),
    (
        "shared memory",
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "s"),
        "inputs[x].parameters",
    ),
]


def _shape(made: Request, *shape: int) -> None:
    made.inputs[0].ClearField("shape")
    made.inputs[0].shape.extend(shape)


@pytest.mark.parametrize(("change", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_an_input_that_does_not_fit_is_named(change: Change, field: str) -> None:
    made = request("FP32", [1, 3])
    change(made)
    with pytest.raises(Fault) as caught:
        kserve_tensors.input_arrays(made, [spec("tensor(float)")], 8, 90)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.field.startswith(field) or caught.value.field == "inputs[x].contents"


def test_an_integer_that_its_datatype_does_not_hold_is_refused() -> None:
    contents = kserve.InferTensorContents(int_contents=[128])
    with pytest.raises(Fault, match="outside -128 to 127"):
        kserve_tensors.decode_typed_contents("INT8", [1], contents, "inputs[x]")


def test_a_response_is_raw_and_keeps_the_id() -> None:
    answer = kserve_tensors.infer_response(
        request("FP32", []),
        "1",
        {"y": np.ones((1, 2), dtype=np.float32)},
        [TensorSpec("y", "tensor(float)", (None, 2))],
    )
    assert (
        answer.id,
        answer.model_version,
        answer.outputs[0].datatype,
        list(answer.outputs[0].shape),
    ) == (
        "7",
        "1",
        "FP32",
        [1, 2],
    )
    assert answer.raw_output_contents[0] == np.ones(2, dtype=np.float32).tobytes()
