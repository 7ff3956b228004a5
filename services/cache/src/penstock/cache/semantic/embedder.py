"""The model that embeds prompts: known from its card at the start, loaded with the first prompt.

The model, its runtime and its tokenizer take some 80 MB. Most deployments never look an answer up
by meaning: what they ask costs less than the look-up, or is no conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.cache.semantic.classes import Floats
from penstock.onnx.card import CARD, BadModel, read_card

MIN_NORM = 1e-9
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedder:
    """How prompts are embedded.

    `revision` is `name@revision` of the model; `width` is the number of values in a vector; `embed`
    gives the vector of a text, of length 1, and raises BadModel where the model cannot be loaded.
    """

    revision: str
    width: int
    embed: Callable[[str], Floats]


def embedder_of(name: str, folder: Path) -> Embedder:
    """The embedder in a model's folder, which is named for the revision. The first text that it
    embeds takes longer by the loading of the model, a third of a second.

    Raises:
        BadModel: a file is missing or differs from its card, or the model gives no embeddings.
    """
    card = read_card(folder)
    if not card.dimension:
        raise BadModel(f"{folder / CARD}: `dimension` is 0, so the model gives no embeddings")
    return Embedder(f"{name}@{folder.name}", card.dimension, LateModel(folder))


class LateModel:
    """A model that is loaded when it is first called, and not tried again where it cannot be.
    Called in one thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._embed: Callable[[str], Floats] | None = None
        self._why_not: BadModel | None = None

    def __call__(self, text: str) -> Floats:
        """The vector of a text, of length 1. Raises BadModel."""
        if self._why_not is not None:
            raise self._why_not
        if self._embed is None:
            self._embed = self._loaded()
        return self._embed(text)

    def _loaded(self) -> Callable[[str], Floats]:
        try:
            return _load(self._folder)
        except BadModel as error:
            self._why_not = error
            log.error("the embedder cannot be loaded, only exact answers are served: %s", error)
            raise


def _load(folder: Path) -> Callable[[str], Floats]:
    from penstock.onnx.encoder import TextModel  # with onnxruntime and the tokenizers

    model = TextModel.load(folder)

    def embed(text: str) -> Floats:
        vector = model.embed([text])[0]
        return np.asarray(vector / max(float(np.linalg.norm(vector)), MIN_NORM), np.float32)

    return embed
