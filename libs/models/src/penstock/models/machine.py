"""The machine that a model was made on, for its card: what the CPU can do decides how INT8 is best
made.
"""

from __future__ import annotations

import platform

import onnxruntime
from penstock.models.quantize import cpu_features


def machine() -> dict[str, str]:
    """Processor, the instruction sets that matter to INT8, Python and onnxruntime."""
    return {
        "processor": platform.machine(),
        "features": " ".join(cpu_features()),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
