"""`python -m penstock.inference_onnx_quantized` starts the service."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.inference_onnx_quantized.build import NAME, build
from penstock.inference_onnx_quantized.settings import InferenceSettings


def main() -> None:
    run_service(NAME, InferenceSettings, build, "What does the model say?")


if __name__ == "__main__":
    main()
