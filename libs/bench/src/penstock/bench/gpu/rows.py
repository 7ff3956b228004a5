"""Rows a second of a model in this process: FP32 and FP16, with and without I/O binding, one by one
and in batches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from penstock.onnx.card import read_card
from penstock.onnx.session import Array, OnnxSession

TOKENS = 32
BATCH = 128
BOUND, UNBOUND = "bound", "unbound"
ALONE, TOGETHER = "one by one", "in batches"


class RowRates:
    """Sessions of each folder on the same provider, with I/O binding and without.

    Raises:
        BadModel: the runtime cannot load a model.
    """

    def __init__(self, folders: Mapping[str, Path], providers: tuple[str, ...]) -> None:
        self._sessions = {
            f"{precision} {binding}": OnnxSession(
                folder / read_card(folder).model, 1, providers, bind=binding == BOUND
            )
            for precision, folder in folders.items()
            for binding in (UNBOUND, BOUND)
        }

    @property
    def provider(self) -> str:
        """The execution provider that serves."""
        return next(iter(self._sessions.values())).provider

    def per_s(self, batch: int, seconds: float) -> dict[str, float]:
        """Rows a second by session and by rows of a run, each for about so many seconds."""
        return {
            f"{name} {how}": _rows_per_s(session, rows, seconds)
            for name, session in self._sessions.items()
            for how, rows in ((ALONE, 1), (TOGETHER, batch))
        }


def _rows_per_s(session: OnnxSession, rows: int, seconds: float) -> float:
    inputs: dict[str, Array] = {
        spec.name: np.ones((rows, TOKENS), dtype=np.int64) for spec in session.inputs
    }
    session.run(inputs)  # The first run of a shape also chooses how to compute it.
    began_s, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - began_s < seconds:
        session.run(inputs)
        runs += 1
    return runs * rows / (time.perf_counter() - began_s)


def row_ratios(rates: Mapping[str, float]) -> dict[str, float]:
    """The figures of one round of `RowRates.per_s`."""
    best = rates[f"FP16 {BOUND} {TOGETHER}"]
    return {
        "fp16_vs_fp32_rows": best / rates[f"FP32 {BOUND} {TOGETHER}"],
        "bound_vs_unbound_rows": best / rates[f"FP16 {UNBOUND} {TOGETHER}"],
        "batched_vs_single_rows": best / rates[f"FP16 {BOUND} {ALONE}"],
    }
