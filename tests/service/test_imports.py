"""What the services import when they are assembled: numerical libraries only where they are used.

They take a second and 100 MB, which every process of every cell would pay.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LATER = ("faiss", "scipy", "sklearn")
CELL = ("router", "limiter", "batcher")
BESIDE = ("scaler", "telemetry", "console")
PROGRAM = """
import importlib, sys
for name in sys.argv[2].split(","):
    importlib.import_module(f"penstock.{name}.build")
print(*(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("services", "libraries"),
    [(CELL, ("numpy", "onnxruntime", *LATER)), (("cache",), LATER), (BESIDE, LATER)],
)
def test_numerical_libraries_are_imported_where_they_are_used(
    services: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", PROGRAM, ",".join(libraries), ",".join(services)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
