"""The command `penstock`. Asks running services over their public APIs."""
