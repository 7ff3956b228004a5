"""The bounded windows of traces and metric series, and what is added up from them.

Imports spans.
"""
