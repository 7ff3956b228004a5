"""Unmodified clients against the HTTP edge: which cases were run, failed, left out and why."""
