"""What telemetry passes on: OTLP exports, Prometheus text, incidents by webhook."""
