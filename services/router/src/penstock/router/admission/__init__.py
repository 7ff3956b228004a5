"""May this caller spend this now?

Asks the limiter, mostly from leases in hand. Imports requests and stages.
"""
