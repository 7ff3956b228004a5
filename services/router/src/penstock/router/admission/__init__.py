"""May this caller spend this now?

Asks the limiter, mostly by drawing on leases that are here already. Imports requests and stages.
"""
