"""Spans as plain values, read out of OTLP messages: trees, critical paths, what is removed from
them.
"""
