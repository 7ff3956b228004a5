"""Spans, counts and their export by OpenTelemetry.

Implements the tracer that `penstock.rpc` asks for.
"""
