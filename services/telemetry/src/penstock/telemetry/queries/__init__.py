"""Queries of the store, and its values as messages."""
