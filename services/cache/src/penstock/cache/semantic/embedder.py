"""The model that embeds prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.onnx.encoder import TextModel

MIN_NORM = 1e-9


@dataclass(frozen=True, slots=True)
class Embedder:
    """How prompts are embedded.

    `revision` is `name@revision` of the model; `width` is the number of values in a vector; `embed`
    gives the vector of a text, of length 1.
    """

    revision: str
    width: int
    embed: Callable[[str], Floats]


def load_embedder(name: str, folder: Path) -> Embedder:
    """The embedder from a model's folder, which is named for the revision.

    Raises:
        BadModel: the folder holds no model that can be loaded.
    """
    model = TextModel.load(folder)

    def embed(text: str) -> Floats:
        vector = model.embed([text])[0]
        return np.asarray(vector / max(float(np.linalg.norm(vector)), MIN_NORM), np.float32)

    return Embedder(f"{name}@{folder.name}", len(embed("any text")), embed)
