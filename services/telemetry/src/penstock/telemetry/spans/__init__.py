"""Spans as plain values, read from OTLP messages: trees, critical paths, what is removed from them.

Imports nothing of the other subjects.
"""
