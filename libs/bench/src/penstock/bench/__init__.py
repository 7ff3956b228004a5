"""The benchmarks: a folder for each, `harness` for what they share, `peers` for other programs."""
