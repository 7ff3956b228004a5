"""What benchmarks share: options, data sets, load, processes, results and their pages."""
