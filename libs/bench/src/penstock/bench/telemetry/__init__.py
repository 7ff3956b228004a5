"""The benchmark `telemetry`."""
