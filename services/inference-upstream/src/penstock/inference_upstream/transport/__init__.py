"""Pooled HTTP connections to one upstream."""
