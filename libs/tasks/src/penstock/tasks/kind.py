"""What a kind of task is to all code that serves every kind, and what kinds that take texts have in
common: checks, and estimates of their tokens without the model's tokenizer, which routing and
grouping by length need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import invalid
from penstock.tasks.tokens import token_bounds

TokenCounter = Callable[[str], int]
"""Counts a text's tokens with a model's own tokenizer, without what a template puts around it."""
Task = inference_pb2.Task
TaskResult = inference_pb2.TaskResult

BYTES_PER_TOKEN = 4
"""UTF-8 bytes of a token, as an estimate for text of unknown language and tokenizer."""
OVERHEAD_TOKENS = 16
"""Tokens that a template puts around one text or message, at most."""
MAX_TEXTS = 1024

MARKS = ".,?!'-/:\"()"
"""Punctuation that word-piece tokenizers give tokens of their own."""

END_TOKENS = 2
"""Tokens that an encoder puts around a text."""

ASCII_BYTES_PER_TOKEN, OTHER_BYTES_PER_TOKEN = 6, 4
"""UTF-8 bytes of a token where a text has few spaces: no word is taken to be one token however long
it is.
"""


class Estimate(NamedTuple):
    """How large a task is, estimated before anything is done: enough to price and to place it."""

    rows: int
    """Texts that are computed by themselves; 1 where the task is one piece of work."""
    input_tokens: int
    output_tokens: int = 0
    """Output tokens that the task may cause at most; 0 where it causes none or leaves it open."""
    input_bound: int = 0
    """Input tokens that the task does not exceed, what a template puts around its parts included.
    """
    counted: bool = False
    """Whether the model's own tokenizer has counted the input; it is estimated by script if not."""


class SimilarPart(NamedTuple):
    """What of a task may differ when an answer is reused by similarity."""

    text: str
    """The part that is compared."""
    rest: bytes
    """All else, in a form that is equal for equal rests."""


class Kind(Protocol):
    """One kind of task. Implementations are values without state."""

    name: str
    """The field of `Task.task` that holds it."""
    number: inference_pb2.TaskKind
    """How contracts name it."""
    operation: str
    """`gen_ai.operation.name` of OpenTelemetry's GenAI conventions."""
    repeatable: bool
    """Whether a task may be computed twice without anybody noticing: hedged, tried again after a
    time-out.
    """
    conversational: bool
    """Whether a task is a conversation whose prompt may be shaped, whose prefix is worth an
    instance's cache, and whose length must fit a context window.
    """
    cheap: bool
    """Whether computing an answer costs less than looking it up in vain, so that a key that is
    known not to be kept is not looked up.
    """
    open_ended: bool
    """Whether an answer's length is open, so that a call holds budget for itself, and for longer
    than a lease.
    """
    streams: bool
    """Whether an instance makes an answer piece by piece; others come as one piece."""
    default_model: str
    """The model that comes with Penstock for it."""

    def validate(self, task: Task, at: str) -> None:
        """Check a task; `at` is put before the names of its fields.

        Raises:
            Fault: INVALID_ARGUMENT for the first field that cannot be.
        """
        ...

    def public_field(self, field: str) -> str:
        """The name that the public request has for a field of the inner task."""
        ...

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        """How large the task is, by the model's own tokenizer where there is one."""
        ...

    def rows(self, task: Task) -> int:
        """Texts that are computed by themselves, at least 1: what a batch's size is counted in."""
        ...

    def split(self, task: Task, max_rows: int) -> list[Task]:
        """The task in pieces of at most `max_rows` rows; one piece where it cannot be split."""
        ...

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        """Write the answers of the task's pieces, in their order, as one answer."""
        ...

    def confidence(self, result: TaskResult) -> float | None:
        """How sure the answer is of itself, 0 to 1; None for kinds that do not say."""
        ...

    def unshareable_because(self, task: Task, max_temperature: float, *, asked_for: bool) -> str:
        """Why an answer could not be stored, as far as that is known before there is one: identical
        requests in flight must not share it. Empty where it may be stored.

        Args:
            max_temperature: as `unstorable_because`.
            asked_for: as `unstorable_because`.
        """
        ...

    def unstorable_because(
        self, task: Task, result: TaskResult, max_temperature: float, *, asked_for: bool
    ) -> str:
        """Why an answer must not be stored for reuse; empty where it may.

        Args:
            max_temperature: answers sampled at more are stored only where reuse is asked for.
            asked_for: whether the caller asks for reuse in so many words.
        """
        ...

    def similar_part(self, task: Task) -> SimilarPart | None:
        """What may differ when an answer is reused by similarity; None where none may be."""
        ...


def check_texts(texts: Sequence[str], at: str, field: str = "texts") -> None:
    """Check the texts of a task; `at` is put before the name of their field.

    Raises:
        Fault: INVALID_ARGUMENT for the first text that cannot be.
    """
    if not texts:
        raise invalid(f"{at}{field}", "needs at least one text")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"{at}{field}", f"has {len(texts)} texts; at most {MAX_TEXTS} are allowed")
    for index, text in enumerate(texts):
        if not text.strip():
            raise invalid(f"{at}{field}[{index}]", "is empty")


def text_tokens(text: str) -> int:
    """Estimated tokens of one text for an encoder: its words and marks, and the two at its ends.

    On Banking77 and texts of mixed length the logarithm of estimate ÷ word-piece tokens has a
    standard deviation of 0.065; four bytes a token have 0.17 to 0.27, which a batch of "equal"
    lengths then pays as padding.
    """
    counted = text.count(" ") + 1 + sum(map(text.count, MARKS))
    if text.isascii():
        by_length = len(text) // ASCII_BYTES_PER_TOKEN
    else:
        by_length = len(text.encode(errors="replace")) // OTHER_BYTES_PER_TOKEN
    return END_TOKENS + max(counted, by_length)


def texts_tokens(texts: Iterable[str]) -> int:
    """Estimated tokens of all texts together."""
    return sum(map(text_tokens, texts))


def text_estimate(
    rows: Sequence[str], count: TokenCounter | None, shared: Sequence[str] = ()
) -> Estimate:
    """The estimate of a task that is texts, computed one by one.

    Args:
        rows: the texts.
        shared: texts that are computed once, for all of them.
    """
    overhead = OVERHEAD_TOKENS * (len(rows) + len(shared))
    if count is None:
        tokens, bound = texts_tokens(rows) + texts_tokens(shared), token_bounds((*rows, *shared))
        return Estimate(max(1, len(rows)), max(1, tokens), 0, bound + overhead)
    tokens = sum(count(text) + END_TOKENS for text in (*rows, *shared))
    return Estimate(max(1, len(rows)), max(1, tokens), 0, tokens + overhead, counted=True)
