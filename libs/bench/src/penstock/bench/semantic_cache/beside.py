"""Other semantic caches over the same stream, in the peers' environment (`make peers`); one that
cannot run is absent, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from penstock.bench.harness.report import Table
from penstock.cache.semantic.classes import Floats

PYTHON = Path(".venv-peers/bin/python")
LIMIT_S = 240.0


def beside(
    texts: Sequence[str],
    answers: Sequence[str],
    vectors: Floats,
    cosine: float,
    here: tuple[str | float, ...],
) -> tuple[Table, tuple[str, ...]]:
    """GPTCache and RedisVL with their own default threshold, and with the cosine that is as precise
    as we are in hindsight.
    """
    same = {"gptcache": 1 - (1 - cosine) / 2, "redisvl": 1 - cosine}  # in each one's own measure
    rows: list[tuple[str | float, ...]] = [here]
    absent: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.npz"
        np.savez(stream, texts=np.array(texts), answers=np.array(answers), vectors=vectors)
        for peer, threshold in same.items():
            for said in ("default", f"{threshold:.4f}"):
                try:
                    came = _run(stream, peer, said)
                except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
                    absent.append(
                        f"{peer} ({said}) did not run here: {type(error).__name__}; `make "
                        "peers` makes its environment."
                    )
                    continue
                rows.append((peer, said, came["cut"], came["precision"], came["ms"]))
    columns = ("peer", "threshold", "cut", "precision", "ms a request, without the embedding")
    return Table("Other caches on Banking77, same embedder", columns, tuple(rows)), tuple(absent)


def _run(stream: Path, peer: str, threshold: str) -> dict[str, float]:
    script = Path(__file__).parents[1] / "peers" / "semantic_caches.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "OMP_NUM_THREADS": "1"
    }
    ended = subprocess.run(
        [str(PYTHON.absolute()), str(script), str(stream), peer, threshold],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found
