"""Entries in the store: written, read, limited in bytes, listed and invalidated.

Imports nothing of the other subjects.
"""
