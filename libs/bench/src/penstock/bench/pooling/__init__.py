"""The benchmark `pooling`."""
