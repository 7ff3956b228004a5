"""Entries in the store: kept, bounded, listed, invalidated.

Imports nothing of the other subjects.
"""
