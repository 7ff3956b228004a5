"""What `gpu` prepares without a GPU, on the encoder that comes with Penstock."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.gpu.benchmark import MODEL, PROVIDERS, prepare
from penstock.bench.gpu.folder import FLOORS, graph_problems
from penstock.bench.gpu.rows import RowRates, row_ratios
from penstock.bench.harness.processes import home_folder
from penstock.onnx.card import read_card
from penstock.onnx.session import CPU
from penstock.service.default_models import ENCODER

FP32 = home_folder() / "models" / f"{ENCODER}-fp32" / "1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the FP16 model."""
    home = tmp_path_factory.mktemp("home")
    assert prepare(FP32, home).problems == ()
    return home


def test_the_fp16_folder_keeps_the_floors_and_names_its_source(home: Path) -> None:
    card = read_card(home / "models" / MODEL / "1")
    assert card.quantisation.startswith("FP16")
    assert all(card.figures[name] >= floor for name, floor in FLOORS.items())
    assert card.figures["size_ratio"] > 1.9
    assert not card.rows_singly


def test_the_fp32_folder_is_told_apart() -> None:
    (problem,) = graph_problems(FP32)
    assert "weights are FP32" in problem


def test_every_way_of_computing_rows_runs_on_the_provider_that_is_there(home: Path) -> None:
    rates = RowRates({"FP32": FP32, "FP16": home / "models" / MODEL / "1"}, PROVIDERS)
    found = rates.per_s(batch=2, seconds=0.01)
    assert rates.provider in (*PROVIDERS, CPU)
    assert len(found) == 8
    assert min(found.values()) > 0
    assert set(row_ratios(found)) == {
        "fp16_vs_fp32_rows",
        "bound_vs_unbound_rows",
        "batched_vs_single_rows",
    }


def test_what_cannot_be_made_is_a_problem_in_words(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "nothing", tmp_path)
    assert len(prepared.problems) == 1
    assert prepared.figures == {}
