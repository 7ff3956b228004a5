"""The prompt optimiser: a conversation in, one that costs less out.

Plain; imports nothing of ours.
"""
