"""The bounded windows of traces and of metric series, and statistics over traces.

Imports the spans.
"""
