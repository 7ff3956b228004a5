"""How raw tensors are computed: in as many runs as memory and the independence of rows need.

A row is an index of the first dimension, of the inputs and outputs whose first size may vary. Where
a model scales its activations over all rows of a run (dynamic quantisation), a row's answer would
depend on the rows beside it, so each row runs alone. Where attention or the like takes memory by
rows × length², rows run in parts. Length is the largest size that may vary besides the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.inference_onnx_quantized.request_checks import FieldViolation, TaskLimits
from penstock.onnx.session import TensorSpec
from penstock.service.purity import pure

FIELD = "task.infer.inputs"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorRuns:
    """Runs of at most `run_rows` of the rows; `split` names the inputs that have rows."""

    rows: int
    run_rows: int
    length: int
    split: frozenset[str]

    @property
    def starts(self) -> range:
        """The first row of each run."""
        return range(0, max(1, self.rows), self.run_rows)

    @property
    def cells(self) -> int:
        """Rows × length² of the largest run."""
        return min(self.rows, self.run_rows) * self.length**2


@pure
def plan_runs(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    shapes: Shapes,
    *,
    rows_alone: bool,
    limits: TaskLimits,
) -> TensorRuns | FieldViolation:
    """How to run a model on inputs of these shapes, or why it cannot be.

    Args:
        rows_alone: whether a row's answer would depend on others of its run.
    """
    split = frozenset(spec.name for spec in inputs if _has_rows(spec))
    sizes = {shapes[name][0] for name in split}
    rows = max(sizes, default=1)
    length = _length(inputs, shapes)
    if rows > limits.max_texts:
        return FieldViolation(FIELD, f"inference request batch-size must be <= {limits.max_texts}")
    max_cells = max(limits.max_cells, limits.max_tokens**2)
    divisible = len(sizes) == 1 and all(map(_has_rows, outputs))
    if rows > 1 and rows_alone and not divisible:
        return FieldViolation(
            FIELD,
            f"have {rows} rows, which this model must compute one at a time and cannot tell apart "
            "(dynamic quantisation; inputs or outputs without one row each): send one row",
        )
    at_least = 1 if divisible else rows
    if at_least * length**2 > max_cells:
        return FieldViolation(
            FIELD,
            f"need memory for {at_least} × {length}² values at once; at most {max_cells} are "
            "computed: send fewer rows or shorter ones",
        )
    if not divisible:
        return TensorRuns(rows, rows, length, frozenset())
    run_rows = 1 if rows_alone else max_cells // max(1, length**2)
    return TensorRuns(rows, run_rows, length, split)


def _has_rows(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] is None


def _length(inputs: Sequence[TensorSpec], shapes: Shapes) -> int:
    return max(
        (
            size
            for spec in inputs
            for size, declared in zip(shapes[spec.name][1:], spec.shape[1:], strict=True)
            if declared is None
        ),
        default=1,
    )
