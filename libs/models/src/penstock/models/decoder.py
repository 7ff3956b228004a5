"""A folder for `generate`: a Hugging Face decoder through onnxruntime-genai's own model builder,
weights in int4 or int8.
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
from penstock.models.machine import machine
from penstock.models.publish import publish_new
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.decoder import GENAI_CONFIG, Decoder, Sampling

KEPT = (".onnx", ".data", ".json", ".jinja")
LONGEST = 1 << 15
"""Tokens of context at most: the builder's figure may be one that no memory here can hold a cache
for.
"""


def build_decoder(
    source: Path, target: Path, precision: str, licence: str, step: Callable[[str], None]
) -> ModelCard:
    """Write to `target` the decoder in `source` with weights in `precision` ("int4", "int8" or
    "fp32"), tried with one short answer.

    Raises:
        BadModel: what it takes is not installed, the builder does not know the architecture, or the
            result does not answer.
    """
    require_torch()
    for name in ("onnxruntime_genai", "onnx_ir"):
        if importlib.util.find_spec(name) is None:
            raise BadModel(f"{name} is not installed; install the extras models and generate")
    with tempfile.TemporaryDirectory(prefix="penstock-decoder-") as scratch:
        made = Path(scratch) / "made"
        step(f"building, weights in {precision}")
        _build(source, made, Path(scratch) / "cache", precision)
        files = {
            path.name: checksum(path) for path in sorted(made.iterdir()) if path.suffix in KEPT
        }
        if "tokenizer.json" not in files:
            raise BadModel(f"{source}: has no fast tokenizer (tokenizer.json)")
        place = target.resolve()
        card = ModelCard(
            name=place.parent.name,
            version=place.name,
            tasks=("generate",),
            model="model.onnx",
            tokenizer="tokenizer.json",
            max_input_tokens=_context(made),
            quantisation=precision,
            sources=(f"Hugging Face directory {source.resolve().name}",),
            licence=licence,
            files=files,
            machine=machine(),
        )
        write_card(made, card)
        step("trying one answer")
        tokens = _try(Decoder.load(made))
        card = card.model_copy(
            update={
                "figures": {
                    "bytes": float(sum(file.size_bytes for file in files.values())),
                    "tried_tokens": tokens,
                }
            }
        )
        write_card(made, card)
        publish_new(made, target)
    return card


def _build(source: Path, made: Path, cache: Path, precision: str) -> None:
    command = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        str(source),
        "-o",
        str(made),
    ]
    command += ["-p", precision, "-e", "cpu", "-c", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (made / "model.onnx").is_file():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadModel(f"{source}: the builder of onnxruntime-genai cannot take it ({last})")


def _context(made: Path) -> int:
    return min(
        LONGEST,
        int(
            json.loads((made / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]["context_length"]
        ),
    )


def _try(decoder: Decoder) -> float:
    pieces = list(decoder.generate(decoder.encode([("user", "Hello")]), Sampling(max_tokens=8)))
    return float(pieces[-1].tokens)
