"""The quantised model beside the original: size, speed, similarity of answers, accuracy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import Stack
from penstock.stack.workload import AgentRequest, agent_requests
from rich.console import Console
from rich.table import Table

TITLE = "inference: quantised against original"
ORIGINAL = f"{DEFAULT_MODEL}-fp32"
WARM_UP_TEXTS = 4
RUNS, TRAINING_RUNS = 5, 3
"""Runs of each agent that are measured, and those of them from which the class means are computed;
the other runs are tested.
"""


@dataclass(frozen=True)
class Measured:
    """One model: file size, milliseconds a text on one thread, accuracy from 0 to 1."""

    size_bytes: int
    ms_per_text: float
    accuracy: float


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Measure both models on the demo's own texts, in this process, one text at a time."""
    folder = stack.plan.home / "models"
    try:
        original = await asyncio.to_thread(TextModel.load, folder / ORIGINAL / "1")
        quantised = await asyncio.to_thread(TextModel.load, folder / DEFAULT_MODEL / "1")
    except BadModel as error:
        console.print(f"left out: {error}")
        return {}
    before = await asyncio.to_thread(_measure, original, folder / ORIGINAL)
    after = await asyncio.to_thread(_measure, quantised, folder / DEFAULT_MODEL)
    figures = {
        "int8_size_ratio": before.size_bytes / after.size_bytes,
        "int8_speedup": before.ms_per_text / after.ms_per_text,
        "int8_accuracy_kept": after.accuracy / before.accuracy,
    }
    console.print(_table(before, after, figures, quantised.card.figures))
    digits = {"int8_accuracy_kept": 3}
    return {name: round(value, digits.get(name, 2)) for name, value in figures.items()}


def _measure(model: TextModel, folder: Path) -> Measured:
    requests = [request for request in agent_requests() if _run_of(request) <= RUNS]
    model.embed([request.text for request in requests[:WARM_UP_TEXTS]])
    started_s = time.perf_counter()
    vectors = np.concatenate([model.embed([request.text]) for request in requests])
    ms_per_text = (time.perf_counter() - started_s) * 1e3 / len(requests)
    size_bytes = (folder / "1" / "model.onnx").stat().st_size
    return Measured(size_bytes, ms_per_text, _accuracy(vectors, requests))


def _run_of(request: AgentRequest) -> int:
    return int(request.run_id.rpartition("-")[2])


def _accuracy(vectors: NDArray[np.float32], requests: Sequence[AgentRequest]) -> float:
    """Share of texts whose own step has the nearest class mean, for each agent among its ten steps.

    The means come from the agent's first runs, the tested texts from the others.
    """
    runs = np.array([_run_of(request) for request in requests])
    steps = np.array([request.step for request in requests])
    tenants = np.array([request.tenant for request in requests])
    right = tested = 0
    for tenant in np.unique(tenants):
        training = (tenants == tenant) & (runs <= TRAINING_RUNS)
        testing = (tenants == tenant) & (runs > TRAINING_RUNS)
        names = np.unique(steps[training])
        means = np.stack([vectors[training & (steps == name)].mean(axis=0) for name in names])
        chosen = names[np.argmax(vectors[testing] @ means.T, axis=1)]
        right += int(np.sum(chosen == steps[testing]))
        tested += len(chosen)
    return right / tested


def _table(
    before: Measured, after: Measured, ratios: dict[str, float], card: dict[str, float]
) -> Table:
    table = Table("", "original FP32", "quantised INT8", "ratio")
    table.add_row(
        "size on disk, MB",
        f"{before.size_bytes / 1e6:.1f}",
        f"{after.size_bytes / 1e6:.1f}",
        f"{ratios['int8_size_ratio']:.2f}× smaller",
    )
    table.add_row(
        "ms a text, one thread",
        f"{before.ms_per_text:.2f}",
        f"{after.ms_per_text:.2f}",
        f"{ratios['int8_speedup']:.2f}× faster",
    )
    table.add_row("mean cosine to the original", "1", f"{card['cosine_mean']:.4f}", "")
    table.add_row("same nearest neighbour", "1", f"{card['neighbour_agreement']:.2f}", "")
    table.add_row(
        "right step among an agent's ten",
        f"{before.accuracy:.3f}",
        f"{after.accuracy:.3f}",
        f"{ratios['int8_accuracy_kept']:.3f} kept",
    )
    return table
