"""The semantic decision: may the answer of a like request be reused?

Imports storage for what is kept.
"""
