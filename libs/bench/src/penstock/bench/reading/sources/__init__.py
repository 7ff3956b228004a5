"""What the benchmark looks for in the sources: by syntax and names, nothing is run."""
