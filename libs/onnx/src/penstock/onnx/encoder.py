"""A text model: texts in, embeddings or class scores out.

An answer never depends on its neighbours in a batch. Where a model's activations are scaled over
the whole batch, as with dynamic INT8 quantisation, its rows therefore run one at a time; its card
or its graph says so.

Attention takes memory by rows × length². Rows beyond a bound run one after another, and a run that
took much gives its memory back.
"""

from __future__ import annotations

import contextlib
import mmap
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
MAX_CELLS = 1 << 22
"""Rows × length² of one run, unless a single row has more: with 12 heads about 200 MB for each
tensor of scores.
"""
FREEING_CELLS = 1 << 19
"""Rows × length² from which a run gives its memory back: the time that it takes does not count."""
SCALED_OVER_BATCH = b"DynamicQuantize"
"""In the names of ONNX's operators that scale activations over all rows of their input."""
WARM_UP_TEXTS = ("warm", "A sentence of middle length to warm the model up with.", "word " * 120)


def never_cancelled() -> bool:
    """The default for `cancelled`: always False."""
    return False


class RunCancelled(Exception):
    """The caller gave up between two rows or tokens."""


@dataclass(frozen=True)
class TextModel:
    """A loaded text model. Owner: whoever loaded it; nothing needs closing."""

    card: ModelCard
    session: OnnxSession
    tokenizer: Tokenizer | None = None
    """None for a model of tensors only."""
    scales_over_batch: bool = False
    """Whether activations are scaled over all rows of a run, whatever the card says."""

    @classmethod
    def load(
        cls, folder: Path, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> TextModel:
        """Load a model folder.

        Args:
            threads: threads inside one operator.
            providers: onnxruntime execution providers, the best first.

        Raises:
            BadModel: see `read_card`, `OnnxSession` and `load_tokenizer`.
        """
        card = read_card(folder)
        session = OnnxSession(folder / card.model, threads, providers)
        tokenizer = load_tokenizer(folder, card.tokenizer) if card.tokenizer else None
        return cls(card, session, tokenizer, scales_over_batch(folder / card.model))

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text with its special tokens; nothing is cut, so the caller must refuse
        what is too long.

        Raises:
            BadModel: the model has no tokenizer.
        """
        encodings = self._text_tokenizer().encode_batch(list(texts))
        return [(encoding.ids, encoding.type_ids) for encoding in encodings]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Token ids of two texts each, for a model that scores pairs; the second text's tokens have
        segment 1.

        Raises:
            BadModel: the model has no tokenizer.
        """
        encodings = self._text_tokenizer().encode_batch(list(pairs))
        return [(encoding.ids, encoding.type_ids) for encoding in encodings]

    def _text_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise BadModel(f"{self.card.name}: has no tokenizer, so it takes tensors only")
        return self.tokenizer

    def run(
        self,
        rows: Sequence[Encoded],
        cancelled: Callable[[], bool] = never_cancelled,
        max_cells: int = MAX_CELLS,
    ) -> Floats:
        """The model's first output for each row, in order; shape (rows, width).

        Rows of similar length run together, unless rows must run singly.

        Args:
            cancelled: called between two runs.
            max_cells: rows × length² of one run, where it has more than one row.

        Raises:
            RunCancelled: `cancelled` returned True.
            BadInput: the model cannot compute a row, or gives no vector of one size for each.
        """
        singly = self.card.rows_singly or self.scales_over_batch
        outputs: dict[int, Array] = {}
        lengths = [len(ids) for ids, _ in rows]
        for indices in runs_of(lengths, 1 if singly else SUB_BATCH_ROWS, max_cells):
            if cancelled():
                raise RunCancelled
            vectors = self._run_together([rows[index] for index in indices])
            outputs.update(zip(indices, vectors, strict=True))
        if len({vector.shape for vector in outputs.values()}) > 1:
            raise BadInput(
                "the model's first output has another shape for each text; it should have "
                "one vector a text"
            )
        in_order = [outputs[index] for index in range(len(rows))]
        return np.stack(in_order).astype(np.float32, copy=False)

    def _run_together(self, rows: Sequence[Encoded]) -> Array:
        """The first output for rows padded to the longest one."""
        longest = max(len(ids) for ids, _ in rows)
        input_ids = np.zeros((len(rows), longest), dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        token_type_ids = np.zeros_like(input_ids)
        for index, (ids, types) in enumerate(rows):
            input_ids[index, : len(ids)] = ids
            attention_mask[index, : len(ids)] = 1
            token_type_ids[index, : len(ids)] = types
        arrays = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        inputs = {spec.name: arrays[spec.name] for spec in self.session.inputs}
        frees_memory = len(rows) * longest**2 >= FREEING_CELLS
        return self.session.run(inputs, frees_memory=frees_memory)[0]

    def warm_up(self) -> None:
        """Run once for each of a few lengths, so that the first caller does not pay for first
        times.

        A model of tensors gets one row of zeros, which it may refuse.
        """
        if self.tokenizer is not None:
            self.embed(WARM_UP_TEXTS)
            return
        with contextlib.suppress(BadInput):
            self.session.run({spec.name: _zeros(spec) for spec in self.session.inputs})

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings of texts, shape (texts, dimension).

        Texts longer than the model takes are cut: for callers that do not check lengths.
        """
        longest = self.card.max_input_tokens
        return self.run([(ids[:longest], types[:longest]) for ids, types in self.encode(texts)])


def runs_of(lengths: Sequence[int], max_rows: int, max_cells: int) -> list[list[int]]:
    """Indexes of rows that run together: of similar length, the shortest first; at most `max_rows`,
    and at most `max_cells` of rows × length² where that is more than one row.
    """
    runs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        rows = len(runs[-1]) + 1 if runs else max_rows + 1
        if rows > max_rows or rows * lengths[index] ** 2 > max_cells:
            runs.append([])
        runs[-1].append(index)
    return runs


def scales_over_batch(path: Path) -> bool:
    """Whether a model's graph has an operator that scales activations over all rows of a run."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        return graph.find(SCALED_OVER_BATCH) >= 0


def _zeros(spec: TensorSpec) -> Array:
    """Zeros, or empty strings, for an input; 1 where a size may vary."""
    shape = [1 if size is None else size for size in spec.shape]
    dtype = NUMPY_OF.get(spec.type, np.float32)
    if dtype is np.object_:
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, dtype=dtype)


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
