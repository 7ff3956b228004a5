"""The benchmark `fault-suite`."""
