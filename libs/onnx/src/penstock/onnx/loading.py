"""Loads a model folder as what its card says it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.onnx.card import parse_card
from penstock.onnx.decoder import Decoder
from penstock.onnx.encoder import TextModel


def load_model(
    folder: Path, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> TextModel | Decoder:
    """Load a model folder: a decoder where the card lists the task `generate`, else a text model.

    Raises:
        BadModel: see `TextModel.load` and `Decoder.load`.
    """
    if "generate" in parse_card(folder).tasks:
        return Decoder.load(folder, threads)
    return TextModel.load(folder, threads, providers)
