"""Fleets, markets, queues and a model of the store in virtual time, for benchmarks and tests.

Runs the code that serves.
"""
