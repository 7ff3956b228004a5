"""A model folder for `generate`, from a Hugging Face decoder through onnxruntime-genai's own model
builder.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.models.export import require_torch
from penstock.models.publish import publish_new
from penstock.models.quantize import machine
from penstock.onnx.card import BadModel, ModelCard, ModelFile, checksum, write_card
from penstock.onnx.decoder import GENAI_CONFIG, Decoder, Sampling

PUBLISHED_SUFFIXES = (".onnx", ".data", ".json", ".jinja")
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
MAX_CONTEXT_TOKENS = 1 << 15
"""Tokens of context at most: the builder may write a number for whose cache no memory suffices."""


def build_decoder(
    source: Path, target: Path, precision: str, licence: str, show_step: Callable[[str], None]
) -> ModelCard:
    """Write to `target` the decoder in `source`, tried with one short answer.

    Args:
        precision: of the weights: "int4", "int8" or "fp32".

    Raises:
        BadModel: a package is not installed, the builder does not know the architecture, or the
            result does not answer.
    """
    _require_packages()
    with tempfile.TemporaryDirectory(prefix="penstock-decoder-") as scratch:
        folder = Path(scratch) / "made"
        show_step(f"building, weights in {precision}")
        _run_builder(source, folder, Path(scratch) / "cache", precision)
        paths = [path for path in sorted(folder.iterdir()) if path.suffix in PUBLISHED_SUFFIXES]
        files = {path.name: checksum(path) for path in paths}
        if TOKENIZER_FILE not in files:
            raise BadModel(f"{source}: has no fast tokenizer ({TOKENIZER_FILE})")
        place = target.resolve()
        card = ModelCard(
            name=place.parent.name,
            version=place.name,
            tasks=("generate",),
            model=MODEL_FILE,
            tokenizer=TOKENIZER_FILE,
            max_input_tokens=_context_tokens(folder),
            quantisation=precision,
            sources=(f"Hugging Face directory {source.resolve().name}",),
            licence=licence,
            files=files,
            machine=machine(),
        )
        write_card(folder, card)
        show_step("trying one answer")
        figures = _figures(Decoder.load(folder), files)
        card = card.model_copy(update={"figures": figures})
        write_card(folder, card)
        publish_new(folder, target)
    return card


def _require_packages() -> None:
    require_torch()
    for name in ("onnxruntime_genai", "onnx_ir"):
        if importlib.util.find_spec(name) is None:
            raise BadModel(f"{name} is not installed; install the extras models and generate")


def _run_builder(source: Path, folder: Path, cache: Path, precision: str) -> None:
    """Run onnxruntime-genai's builder as a command."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(source), "-o", str(folder)]
    command += ["-p", precision, "-e", "cpu", "-c", str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or not (folder / MODEL_FILE).is_file():
        last_line = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadModel(f"{source}: the builder of onnxruntime-genai cannot take it ({last_line})")


def _context_tokens(folder: Path) -> int:
    config = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))
    return min(MAX_CONTEXT_TOKENS, int(config["model"]["context_length"]))


def _figures(decoder: Decoder, files: dict[str, ModelFile]) -> dict[str, float]:
    """The size of the folder, and the tokens of a short answer."""
    prompt = decoder.encode([("user", "Hello")])
    pieces = list(decoder.generate(prompt, Sampling(max_tokens=8)))
    return {
        "bytes": float(sum(file.size_bytes for file in files.values())),
        "tried_tokens": float(pieces[-1].tokens),
    }
