"""What benchmarks share: options, load, results, their pages."""
