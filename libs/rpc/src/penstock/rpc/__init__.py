"""Calls between services: call context, errors, endpoints, the item stream.

Imports `penstock.service` and the stubs.
"""
