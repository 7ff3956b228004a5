"""The local embedder that helps to select passages and to prune tools: loaded on first use, and
given up for good, with one warning, when it fails.

Called in worker threads only: loading takes a second and each new text some milliseconds. Owner of
the model: this object.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.prompts.selection import Embedder, similarity_by

log = logging.getLogger(__name__)
VECTORS_KEPT = 4096
"""A conversation brings its old passages again with every call; their vectors are at hand then."""
NO_OPINION = 0.0


def load_model(folder: Path) -> Embedder:
    """The text model of a folder, one text at a time, so that a vector never depends on its
    neighbours. Raises what loading raises.
    """
    from penstock.onnx.encoder import (
        TextModel,
    )  # only where a rule selects, and an embedder is named

    model = TextModel.load(folder)

    @functools.lru_cache(VECTORS_KEPT)
    def vector(text: str) -> tuple[float, ...]:
        return tuple(map(float, model.embed([text])[0]))

    return lambda texts: [vector(text) for text in texts]


class LocalEmbedder:
    """A `Similarity` that never fails: without a usable model it has no opinion, and BM25 decides
    alone.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Embedder] = load_model) -> None:
        self._folder, self._load = folder, load
        self._embed: Embedder | None = None
        self._one_at_a_time = threading.Lock()
        self.given_up = False

    def __call__(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        """Similarity of the question to each passage; all the same where there is no usable
        model.
        """
        if not self.given_up:
            try:
                return similarity_by(self._loaded())(question, passages)
            except Exception as error:
                self._give_up(error)
        return [NO_OPINION] * len(passages)

    def _loaded(self) -> Embedder:
        with self._one_at_a_time:
            if self._embed is None:
                self._embed = self._load(self._folder)
            return self._embed

    def _give_up(self, error: Exception) -> None:
        with self._one_at_a_time:
            first, self.given_up = not self.given_up, True
        if first:
            log.warning(
                "prompts.embedder %s cannot be used, BM25 selects alone, no tool is left out: %s",
                self._folder,
                error,
            )
