"""The benchmark `overhead`."""
