"""The pools as they run: history, forecast, decision, effect, and what is kept in the store.

Imports decide, forecast and actuate.
"""
