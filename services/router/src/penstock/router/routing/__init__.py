"""Which model and which instance: scores, strategies, health.

Decisions only; imports requests for a call's size.
"""
