"""What the services import when they are assembled: what they need at rest, and no more.

Numerical libraries alone take a second and 100 MB, which every process of every cell would pay.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LATER = ("faiss", "scipy", "sklearn")
DECIDING = ("router", "limiter", "batcher")
CELL = ("edge", *DECIDING, "cache")
BESIDE = ("scaler", "telemetry", "console")
INSTANCE = ("inference_onnx_quantized",)
PROGRAM = """
import importlib, sys
for name in sys.argv[2].split(","):
    importlib.import_module(f"penstock.{name}.build")
print(*(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("services", "libraries"),
    [
        (DECIDING, ("numpy",)),
        (CELL, ("onnxruntime", "tokenizers", "httpx", "jwt", "h11", *LATER)),
        (BESIDE, ("nicegui", "fastapi", "httpx", *LATER)),
        (INSTANCE, ("redis", "uvicorn", "opentelemetry", *LATER)),
    ],
)
def test_libraries_are_imported_where_they_are_used(
    services: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", PROGRAM, ",".join(libraries), ",".join(services)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
