"""The gRPC service of the cache.

Imports the other subjects; none imports it.
"""
