"""Passing telemetry on: OTLP, Prometheus, a webhook."""
