"""onnxruntime alone, in loops: batches of one length with all threads inside an operator, and
single texts side by side, one a thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from penstock.bench.serving.infer_requests import BATCH, Requests
from penstock.onnx.session import Array, OnnxSession


class BareLoops:
    """The loops over the texts of some requests.

    Args:
        model_file: the ONNX file.
        threads: that a loop may use.
        requests: of one text each, all of one length.
    """

    def __init__(self, model_file: Path, threads: int, requests: Requests) -> None:
        self._threads = threads
        self._batched = OnnxSession(model_file, threads)
        self._single = OnnxSession(model_file, 1)
        self._columns = {
            tensor.name: np.concatenate(
                [
                    np.frombuffer(request.raw_input_contents[position], dtype=np.int64)[None]
                    for request in requests
                ]
            )
            for position, tensor in enumerate(requests[0].inputs)
        }
        self._rows = len(requests)

    def batched_rps(self, seconds: float) -> float:
        """Texts a second in batches of 32."""
        last_start = max(BATCH, self._rows - BATCH + 1)
        began_s = time.perf_counter()
        texts = start = 0
        while time.perf_counter() - began_s < seconds:
            texts += len(self._batched.run(self._inputs(start, BATCH))[0])
            start = (start + BATCH) % last_start
        return texts / (time.perf_counter() - began_s)

    def single_rps(self, seconds: float) -> float:
        """Texts a second one by one, as many loops side by side as there are threads."""
        with ThreadPoolExecutor(self._threads) as pool:
            return sum(pool.map(self._one_loop_rps, [seconds] * self._threads))

    def _one_loop_rps(self, seconds: float) -> float:
        began_s = time.perf_counter()
        texts = 0
        while time.perf_counter() - began_s < seconds:
            self._single.run(self._inputs(texts % self._rows, 1))
            texts += 1
        return texts / (time.perf_counter() - began_s)

    def _inputs(self, start: int, rows: int) -> Mapping[str, Array]:
        return {
            spec.name: self._columns[spec.name][start : start + rows]
            for spec in self._single.inputs
        }
