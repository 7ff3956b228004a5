"""Spans, counts and their export by OpenTelemetry.

Implements the `Tracer` of `penstock.rpc.spans`.
"""
