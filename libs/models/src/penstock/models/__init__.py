"""The model factory: imports, quantises, judges and publishes models. Only here is torch used."""

from penstock.onnx import TELEMETRY_VARIABLE as TELEMETRY_VARIABLE

# Imported first of all: it keeps onnxruntime, which modules here load themselves, from sending.
