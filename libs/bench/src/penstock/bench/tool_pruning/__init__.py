"""The benchmark `tool-pruning`."""
