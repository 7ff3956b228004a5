"""Loads a model folder as what its card says it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.onnx.card import parse_card
from penstock.onnx.decoder import GENAI_CONFIG, Decoder
from penstock.onnx.encoder import TextModel


def load_model(
    folder: Path,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    *,
    decoder_threads: int = 0,
) -> TextModel | Decoder:
    """Load a model folder: a decoder where it has a `genai_config.json`, else a text model.

    Args:
        threads: threads inside an operator of a text model, whose rows run side by side.
        providers: execution providers of a text model; a decoder's folder names its own.
        decoder_threads: threads inside an operator of a decoder; see `Decoder.load`.

    Raises:
        BadModel: see `TextModel.load` and `Decoder.load`.
    """
    if GENAI_CONFIG in parse_card(folder).files:
        return Decoder.load(folder, decoder_threads)
    return TextModel.load(folder, threads, providers)
