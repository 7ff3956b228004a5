"""What a caller asks: what must be right in its options, and the request as it will be served.

Imports nothing of the other subjects.
"""
