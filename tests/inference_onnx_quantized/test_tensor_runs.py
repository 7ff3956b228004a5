"""Raw tensors in runs: rows that do not depend on each other, and memory that is bounded."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from identity import write_identity
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.compute import compute
from penstock.inference_onnx_quantized.repository import LoadedModel
from penstock.inference_onnx_quantized.request_checks import FieldViolation, TaskLimits
from penstock.inference_onnx_quantized.tensor_runs import TensorRuns, plan_runs
from penstock.onnx.encoder import TextModel, runs_of
from penstock.onnx.session import TensorSpec
from penstock.rpc.errors import Fault

MODEL = "all-MiniLM-L6-v2"
LIMITS = TaskLimits(64, 1 << 20, 256)
IDS = TensorSpec("ids", "tensor(int64)", (None, None))
VECTORS = TensorSpec("vectors", "tensor(float)", (None, 384))


@pytest.fixture(scope="module")
def model(home: Path) -> LoadedModel:
    return LoadedModel(TextModel.load(home / "models" / MODEL / "1"), 0)


def plan(
    shape: tuple[int, ...],
    *,
    rows_alone: bool = False,
    max_cells: int = 1 << 16,
    max_tokens: int = 0,
    outputs: tuple[TensorSpec, ...] = (VECTORS,),
) -> TensorRuns | FieldViolation:
    limits = replace(LIMITS, max_cells=max_cells, max_tokens=max_tokens)
    return plan_runs([IDS], outputs, {"ids": shape}, rows_alone=rows_alone, limits=limits)


def infer(rows: np.ndarray) -> pb.Task:
    """A task of token ids, all of which count."""
    columns = {
        "input_ids": rows,
        "attention_mask": np.ones_like(rows),
        "token_type_ids": np.zeros_like(rows),
    }
    return pb.Task(
        infer=pb.InferTask(
            inputs=[
                pb.Tensor(name=name, datatype="INT64", shape=array.shape, data=array.tobytes())
                for name, array in columns.items()
            ]
        )
    )


def vectors(model: LoadedModel, rows: np.ndarray, limits: TaskLimits = LIMITS) -> np.ndarray:
    (output,) = compute(model, infer(rows), limits, lambda: False).infer.outputs
    return np.frombuffer(output.data, dtype=np.float32).reshape(tuple(output.shape))


@pytest.mark.standard_case(31)
def test_a_raw_row_does_not_depend_on_its_neighbours(model: LoadedModel) -> None:
    random = np.random.default_rng(7)
    rows = random.integers(1_000, 20_000, (6, 12))
    together = vectors(model, rows)
    for index, row in enumerate(rows):
        assert np.array_equal(together[index], vectors(model, row[np.newaxis])[0])


@pytest.mark.standard_case(31)
def test_a_graph_tells_whether_it_scales_over_the_batch(home: Path, tmp_path: Path) -> None:
    write_identity(tmp_path / "same" / "1", "same")
    assert TextModel.load(home / "models" / MODEL / "1").scales_over_batch
    assert not TextModel.load(tmp_path / "same" / "1").scales_over_batch


@pytest.mark.standard_case(31)
def test_rows_that_cannot_be_told_apart_are_refused_with_the_reason() -> None:
    whole = TensorSpec("mean", "tensor(float)", (384,))
    refused = plan((3, 5), rows_alone=True, outputs=(whole,))
    assert isinstance(refused, FieldViolation)
    assert "one at a time" in refused.message and "send one row" in refused.message
    assert isinstance(plan((1, 5), rows_alone=True, outputs=(whole,)), TensorRuns)
    assert isinstance(plan((3, 5), outputs=(whole,)), TensorRuns)


@pytest.mark.standard_case(35)
@pytest.mark.parametrize(
    ("shape", "run_rows"),
    [((16, 16), 256), ((16, 128), 4), ((16, 256), 1)],
)
def test_rows_run_in_parts_that_fit(shape: tuple[int, int], run_rows: int) -> None:
    runs = plan(shape)
    assert isinstance(runs, TensorRuns)
    assert runs.run_rows == run_rows
    assert runs.cells <= 1 << 16


@pytest.mark.standard_case(35)
def test_a_row_beyond_the_bound_is_refused_unless_the_card_allows_its_length() -> None:
    refused = plan((1, 257))
    assert isinstance(refused, FieldViolation) and "257²" in refused.message
    assert isinstance(plan((1, 257), max_tokens=512), TensorRuns)


@pytest.mark.standard_case(35)
def test_rows_that_cannot_be_parted_count_together() -> None:
    whole = TensorSpec("mean", "tensor(float)", (384,))
    assert isinstance(plan((4, 128), outputs=(whole,)), TensorRuns)
    assert isinstance(plan((5, 128), outputs=(whole,)), FieldViolation)


@pytest.mark.standard_case(35)
@pytest.mark.parametrize(
    ("lengths", "max_rows", "max_cells", "runs"),
    [
        ([3, 1, 2], 32, 1 << 20, [[1, 2, 0]]),
        ([3, 1, 2], 2, 1 << 20, [[1, 2], [0]]),
        ([10, 10, 10, 2], 32, 200, [[3, 0], [1, 2]]),
        ([50], 32, 200, [[0]]),
        ([], 32, 200, []),
    ],
)
def test_texts_run_in_parts_that_fit(
    lengths: list[int], max_rows: int, max_cells: int, runs: list[list[int]]
) -> None:
    assert runs_of(lengths, max_rows, max_cells) == runs


@pytest.mark.standard_case(35)
def test_parts_give_the_same_vectors_as_one_run(model: LoadedModel) -> None:
    rows = np.random.default_rng(8).integers(1_000, 20_000, (5, 16))
    assert np.array_equal(
        vectors(model, rows), vectors(model, rows, replace(LIMITS, max_cells=1, max_tokens=16))
    )


@pytest.mark.standard_case(35)
def test_a_large_run_gives_its_memory_back(home: Path) -> None:
    """Rows together, as an FP32 model would run them: 32 × 256² with 12 heads takes 300 MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        grown_bytes = process.submit(grown_by_a_large_run, home / "models" / MODEL / "1").result()
    assert grown_bytes < 100 << 20


def grown_by_a_large_run(folder: Path) -> int:
    """How much more memory this process, which has run nothing else, has after a large run."""
    encoder = replace(TextModel.load(folder), scales_over_batch=False)
    model = LoadedModel(encoder, 0)
    small, large = np.full((1, 16), 2_000), np.full((32, 256), 2_000)
    vectors(model, small)
    process = psutil.Process()
    before = process.memory_info().rss
    vectors(model, large)
    return int(process.memory_info().rss - before)


def test_more_rows_than_allowed_are_refused(model: LoadedModel) -> None:
    rows = np.full((3, 4), 2_000)
    with pytest.raises(Fault, match="batch-size must be <= 2"):
        vectors(model, rows, replace(LIMITS, max_texts=2))
