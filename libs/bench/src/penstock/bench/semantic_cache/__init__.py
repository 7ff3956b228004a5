"""The benchmark `semantic-cache`."""
