"""The benchmark `gpu`."""
