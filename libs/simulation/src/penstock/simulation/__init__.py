"""Simulations in virtual time around the serving code, for benchmarks, tests and replays.

A fleet of instances, a batch queue, the spot market, traced requests, and a model of the store.
"""
