"""The benchmark `tokens`."""
