"""The FP16 model folder that GPUs serve: made from the FP32 one, its graph checked, and its code
path run on whatever provider there is. What is wrong is said in sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from penstock.models.quality_floors import QualityFloors
from penstock.models.quantize import Recipe
from penstock.models.quantize_folder import quantize_folder
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import read_card
from penstock.onnx.encoder import Floats, TextModel
from penstock.onnx.session import OnnxSession

FLOORS = {"cosine_min": 0.999, "batch_invariance_cosine_min": 0.9999}
"""What FP16 has to keep of FP32; its answers may depend on neighbours by rounding only."""
MAX_BINDING_DIFFERENCE = 1e-3


def make_fp16_folder(source: Path, target: Path) -> dict[str, float]:
    """Write the FP16 form of the model in `source` to `target`; its figures against FP32.

    Raises:
        BadModel: it cannot be made, or does not keep the floors.
    """
    floors = QualityFloors(SAMPLE_TEXTS, FLOORS)
    card = quantize_folder(source, target, Recipe("fp16"), floors, lambda _: None)
    return dict(card.figures)


def graph_problems(folder: Path) -> Iterator[str]:
    """What is wrong with the graph of an FP16 folder: a weight in FP32, an input or output that
    callers would have to convert.
    """
    model = onnx.load(str(folder / read_card(folder).model))
    onnx.checker.check_model(model)
    weights = (tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 1)
    floats = [tensor.name for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT]
    if floats:
        yield f"{len(floats)} weights are FP32, such as {floats[0]}"
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            yield f"{value.name} is FP16 outside the model"


def binding_problems(folder: Path, providers: tuple[str, ...]) -> Iterator[str]:
    """Whether the model answers the same with I/O binding and without."""
    model = TextModel.load(folder, providers=providers)
    file = folder / model.card.model
    bound = TextModel(model.card, OnnxSession(file, 1, providers, bind=True), model.tokenizer)
    difference = _largest_difference(model.embed(SAMPLE_TEXTS), bound.embed(SAMPLE_TEXTS))
    if not difference <= MAX_BINDING_DIFFERENCE:
        yield f"with I/O binding, answers differ by {difference:.2g}"


def _largest_difference(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).max())
