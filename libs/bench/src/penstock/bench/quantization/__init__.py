"""The benchmark `quantization`."""
