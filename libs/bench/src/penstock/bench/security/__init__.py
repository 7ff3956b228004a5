"""The benchmark `security`."""
