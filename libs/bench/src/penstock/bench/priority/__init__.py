"""The benchmark `priority`."""
