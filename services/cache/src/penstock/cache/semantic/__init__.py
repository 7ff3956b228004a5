"""Semantic reuse: may the answer to a similar request be reused?

Imports `storage`, for the errors of the store that the learning log shares with it.
"""
