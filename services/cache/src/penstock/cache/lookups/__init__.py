"""One look-up: checks, requests in flight, misses that are owed an answer, the semantic question.

Imports semantic and storage.
"""
