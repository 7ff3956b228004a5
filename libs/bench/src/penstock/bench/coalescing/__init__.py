"""The benchmark `coalescing`."""
