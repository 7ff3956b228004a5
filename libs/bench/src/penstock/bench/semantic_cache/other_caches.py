"""Other semantic caches over the same stream, in the peers' environment (`make peers`).

A cache that cannot run here is named with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from penstock.bench.harness.report import Number, Table
from penstock.cache.semantic.classes import Floats

PYTHON = Path(".venv-peers/bin/python")
TIME_LIMIT_S = 240.0
COLUMNS = ("peer", "threshold", "cut", "precision", "ms a request, without the embedding")


def compare(
    texts: Sequence[str],
    answers: Sequence[str],
    vectors: Floats,
    cosine: float,
    our_row: tuple[str | Number, ...],
) -> tuple[Table, tuple[str, ...]]:
    """GPTCache and RedisVL over a stream, and the reasons for those that did not run.

    Each runs with its own default threshold, and with a given cosine in its own measure.

    Args:
        texts: the requests in order.
        answers: their answers.
        vectors: their unit vectors.
        cosine: the second threshold.
        our_row: our decision over the same stream, as a row of the table.
    """
    thresholds = {"gptcache": 1 - (1 - cosine) / 2, "redisvl": 1 - cosine}
    rows = [our_row]
    absent: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.npz"
        np.savez(stream, texts=np.array(texts), answers=np.array(answers), vectors=vectors)
        for peer, value in thresholds.items():
            for threshold in ("default", f"{value:.4f}"):
                try:
                    result = _run(stream, peer, threshold)
                except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
                    absent.append(
                        f"{peer} ({threshold}) did not run here: {type(error).__name__}; "
                        "`make peers` makes its environment."
                    )
                else:
                    cells = (result["cut"], result["precision"], result["ms"])
                    rows.append((peer, threshold, *cells))
    return Table("Other caches on Banking77, same embedder", COLUMNS, tuple(rows)), tuple(absent)


def _run(stream: Path, peer: str, threshold: str) -> dict[str, float]:
    script = Path(__file__).parents[1] / "peers" / "semantic_caches.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [str(PYTHON.absolute()), str(script), str(stream), peer, threshold],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=TIME_LIMIT_S,
        check=True,
    )
    result: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return result
