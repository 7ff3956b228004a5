"""The benchmark `reading`."""
