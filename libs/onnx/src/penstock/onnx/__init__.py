"""ONNX models at run time: model cards, tokenizers, sessions, local decoders.

onnxruntime's wheels send what is loaded and how it runs to their maker, from a data base in the
user's cache folder and seven threads of each process, unless a variable forbids it. The library
reads it as it is loaded, so it is set here, before any module of this package imports it. Who wants
to send sets the variable to 0.
"""

from __future__ import annotations

import os

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"

os.environ.setdefault(TELEMETRY_VARIABLE, "1")
