"""The prompt optimiser: takes a conversation and returns one that costs less.

Pure functions and plain values; imports nothing else of Penstock.
"""
