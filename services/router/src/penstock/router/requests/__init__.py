"""What a caller asks: what must be right in it, by field, and how large it is.

Imports nothing of the other subjects.
"""
