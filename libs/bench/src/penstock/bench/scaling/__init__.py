"""The benchmark `scaling`."""
