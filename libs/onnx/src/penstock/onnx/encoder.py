"""Text in, vectors or class probabilities out, for a model folder with a tokenizer.

Rows run singly where the card says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.onnx.card import BadModel, ModelCard, read_card
from penstock.onnx.session import NUMPY_OF, Array, BadInput, OnnxSession, TensorSpec
from tokenizers import Tokenizer

Encoded = tuple[list[int], list[int]]
"""Token ids and segment ids of one text."""

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
SUB_BATCH_ROWS = 32
WARM_UP_TEXTS = ("warm", "A sentence of middle length to warm the model up with.", "word " * 120)


def never() -> bool:
    """The default for `cancelled`: go on."""
    return False


class RunCancelled(Exception):
    """The caller gave up between two rows."""


@dataclass(frozen=True)
class TextModel:
    """A loaded text model. Owner: whoever loaded it; nothing needs closing."""

    card: ModelCard
    session: OnnxSession
    tokenizer: Tokenizer | None = None
    """None for a model of tensors only."""

    @classmethod
    def load(
        cls, folder: Path, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> TextModel:
        """Load a model folder.

        Raises:
            BadModel: see `read_card` and `OnnxSession`.
        """
        card = read_card(folder)
        return cls(
            card, OnnxSession(folder / card.model, threads, providers), _tokenizer(folder, card)
        )

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text, special tokens included, untruncated: the caller refuses what is
        too long.
        """
        return [(item.ids, item.type_ids) for item in self._texts().encode_batch(list(texts))]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Token ids of two texts each, for a model that scores pairs; the second text's tokens have
        segment 1.
        """
        return [(item.ids, item.type_ids) for item in self._texts().encode_batch(list(pairs))]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        return len(self._texts().encode(text, add_special_tokens=False).ids)

    def _texts(self) -> Tokenizer:
        if self.tokenizer is None:
            raise BadModel(f"{self.card.name}: has no tokenizer, so it takes tensors only")
        return self.tokenizer

    def run(self, rows: Sequence[Encoded], cancelled: Callable[[], bool] = never) -> Floats:
        """First output of the model for each row, in order; shape (rows, width).

        Rows run singly where the model's activations are scaled over the whole batch, so that an
        answer never depends on its neighbours; otherwise in sub-batches of like length. `cancelled`
        is asked between runs; RunCancelled ends the work.

        Raises:
            BadInput: the model cannot compute a row, or gives no vector of one size for each.
        """
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        size = 1 if self.card.rows_singly else SUB_BATCH_ROWS
        results: list[Array | None] = [None] * len(rows)
        for start in range(0, len(order), size):
            if cancelled():
                raise RunCancelled
            chosen = order[start : start + size]
            for index, row in zip(
                chosen, self._run_batch([rows[index] for index in chosen]), strict=True
            ):
                results[index] = row
        found = [row for row in results if row is not None]
        if len({row.shape for row in found}) > 1:
            raise BadInput(
                "the model's first output has another shape for each text; it should have "
                "one vector a text"
            )
        return np.stack(found).astype(np.float32, copy=False)

    def _run_batch(self, rows: Sequence[Encoded]) -> Array:
        longest = max(len(ids) for ids, _ in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for index, (row, segments) in enumerate(rows):
            ids[index, : len(row)], types[index, : len(row)], mask[index, : len(row)] = (
                row,
                segments,
                1,
            )
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return self.session.run({spec.name: given[spec.name] for spec in self.session.inputs})[0]

    def warm_up(self) -> None:
        """One run for each of a few lengths, so that the first caller does not pay for first times.

        A model of tensors gets one row of zeros, which it may refuse.
        """
        if self.tokenizer is not None:
            self.embed(WARM_UP_TEXTS)
            return
        with contextlib.suppress(BadInput):
            self.session.run({spec.name: _zeros(spec) for spec in self.session.inputs})

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings of texts, shape (texts, dimension); texts longer than the model are cut, for
        callers without a door.
        """
        rows = [
            (ids[: self.card.max_input_tokens], types[: self.card.max_input_tokens])
            for ids, types in self.encode(texts)
        ]
        return self.run(rows)


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if size is None else size for size in spec.shape]
    kind = NUMPY_OF.get(spec.type, np.float32)
    return (
        np.full(shape, "", dtype=np.object_) if kind is np.object_ else np.zeros(shape, dtype=kind)
    )


def _tokenizer(folder: Path, card: ModelCard) -> Tokenizer | None:
    return load_tokenizer(folder, card.tokenizer) if card.tokenizer else None


def load_tokenizer(folder: Path, name: str) -> Tokenizer:
    """A tokenizer that neither pads nor cuts.

    Raises:
        BadModel: the file is not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / name))
    except Exception as error:
        raise BadModel(f"{folder / name}: is not a tokenizer ({type(error).__name__})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
