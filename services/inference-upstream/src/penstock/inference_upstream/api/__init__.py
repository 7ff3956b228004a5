"""The inference contract, answered by an upstream."""
