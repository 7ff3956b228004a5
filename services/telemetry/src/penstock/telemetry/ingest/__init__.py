"""Taking telemetry in: OTLP from any exporter, figures of this machine."""
