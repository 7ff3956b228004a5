"""What comes in: OTLP from any exporter, and metrics of this machine."""
