"""The cache: answers that may be reused, exact ones and those to similar requests."""
