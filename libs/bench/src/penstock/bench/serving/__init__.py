"""The benchmark `serving`."""
