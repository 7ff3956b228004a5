"""The benchmark `wires`."""
