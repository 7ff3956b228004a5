"""The benchmark `hop`."""
