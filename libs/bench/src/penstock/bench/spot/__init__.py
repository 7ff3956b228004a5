"""The benchmark `spot`."""
