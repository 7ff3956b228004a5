"""Loads a model folder as what its card says it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.onnx.card import parse_card
from penstock.onnx.decoder import GENAI_CONFIG, Decoder
from penstock.onnx.encoder import TextModel


def load_model(
    folder: Path, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> TextModel | Decoder:
    """Load a model folder: a decoder where it has a `genai_config.json`, else a text model.

    Raises:
        BadModel: see `TextModel.load` and `Decoder.load`.
    """
    if GENAI_CONFIG in parse_card(folder).files:
        return Decoder.load(folder, threads)
    return TextModel.load(folder, threads, providers)
