"""The machine that a model was made on, for its card: how INT8 is made best depends on the CPU."""

from __future__ import annotations

import platform

import onnxruntime
from penstock.models.quantize import cpu_features


def machine() -> dict[str, str]:
    """Processor, its instruction sets for INT8, and the versions of Python and onnxruntime."""
    return {
        "processor": platform.machine(),
        "features": " ".join(cpu_features()),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
