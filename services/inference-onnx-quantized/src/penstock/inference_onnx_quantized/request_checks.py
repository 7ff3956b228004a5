"""What a task may contain: bounds of texts, examples and sampling, before anything is computed.

Plain values; each check returns the first violation that it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.onnx.encoder import MAX_CELLS
from penstock.service.purity import pure

MAX_STOP_STRINGS = 16
MAX_OUTPUT_TOKENS = 1 << 20


@dataclass(frozen=True)
class TaskLimits:
    """Bounds of one task.

    `max_text_bytes` (UTF-8) and `max_tokens` are those of each text; `max_tensor_bytes` is that of
    all tensors that go in, or come out. `max_cells` bounds rows × length² of what is computed at
    once, and so its memory; a row of `max_tokens` is always computed.
    """

    max_texts: int
    max_text_bytes: int
    max_tokens: int
    max_tensor_bytes: int = 64 << 20
    max_cells: int = MAX_CELLS


@dataclass(frozen=True)
class FieldViolation:
    """A field that the caller must correct, and what is wrong with it."""

    field: str
    message: str


@pure
def check_texts(texts: Sequence[str], limits: TaskLimits, field: str) -> FieldViolation | None:
    """What is wrong with a task's texts, before any token is counted."""
    if not texts:
        return FieldViolation(field, "needs at least one text")
    if len(texts) > limits.max_texts:
        message = f"has {len(texts)} texts; at most {limits.max_texts} are allowed"
        return FieldViolation(field, message)
    for index, text in enumerate(texts):
        if not text.strip():
            return FieldViolation(f"{field}[{index}]", "is empty")
        violation = check_text_bytes(text, limits, f"{field}[{index}]")
        if violation is not None:
            return violation
    return None


@pure
def check_text_bytes(text: str, limits: TaskLimits, field: str) -> FieldViolation | None:
    """Whether a text has more UTF-8 bytes than are allowed."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.max_text_bytes:
        message = f"has {size} bytes; at most {limits.max_text_bytes} are allowed"
        return FieldViolation(field, message)
    return None


@pure
def check_lengths(lengths: Sequence[int], limits: TaskLimits, field: str) -> FieldViolation | None:
    """Which text has more tokens than the model takes."""
    for index, length in enumerate(lengths):
        if length > limits.max_tokens:
            message = f"has {length} tokens; the model takes {limits.max_tokens}"
            return FieldViolation(f"{field}[{index}]", message)
    return None


@pure
def check_examples(labels: Sequence[str], head_labels: Sequence[str]) -> FieldViolation | None:
    """Whether there are labels to choose from: those of the examples, or without examples those of
    the model's own classifier head.
    """
    field = "task.classify.examples"
    if not labels:
        if head_labels:
            return None
        message = "are needed: this model has no classifier head of its own"
        return FieldViolation(field, message)
    if any(not label for label in labels):
        return FieldViolation(field, "has an example without a label")
    if len(set(labels)) < 2:
        return FieldViolation(field, "need at least two labels")
    return None


@pure
def check_sampling(
    max_tokens: int, temperature: float, top_p: float, stop: Sequence[str]
) -> FieldViolation | None:
    """What is wrong with how an answer is to be generated."""
    if max_tokens > MAX_OUTPUT_TOKENS:
        message = f"is {max_tokens}; at most {MAX_OUTPUT_TOKENS} are allowed"
        return FieldViolation("task.generate.max_tokens", message)
    if not 0 <= temperature <= 2:
        return FieldViolation("task.generate.temperature", "must be from 0 to 2")
    if not 0 < top_p <= 1:
        return FieldViolation("task.generate.top_p", "must be above 0 and at most 1")
    if len(stop) > MAX_STOP_STRINGS or any(not text for text in stop):
        message = f"takes at most {MAX_STOP_STRINGS} texts, none of them empty"
        return FieldViolation("task.generate.stop", message)
    return None
