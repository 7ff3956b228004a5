"""The benchmark `limiter`."""
