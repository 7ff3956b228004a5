"""Which encoders are imported without torch: those whose graph the model factory writes itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.service.purity import pure

WEIGHTS_FILE = "model.safetensors"


def is_written(source: Path, config: Mapping[str, Any]) -> bool:
    """Whether a Hugging Face directory holds such an encoder and its weights in one file.

    Args:
        config: what its `config.json` says.
    """
    return is_written_architecture(config) and (source / WEIGHTS_FILE).is_file()


@pure
def is_written_architecture(config: Mapping[str, Any]) -> bool:
    """Whether it is BERT with GELU and absolute positions, as `config.json` names them."""
    kind = (config.get("model_type"), config.get("hidden_act"))
    return kind == ("bert", "gelu") and config.get("position_embedding_type") in (None, "absolute")
