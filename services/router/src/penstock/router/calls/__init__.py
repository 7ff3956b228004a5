"""One call on its way: admit, look up, shape, compute, and the receipt.

Imports requests, routing, instances, stages.
"""
