"""The benchmark `faults`."""
