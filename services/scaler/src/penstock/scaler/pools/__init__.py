"""One pool as it runs: samples in, forecasts, decisions, effects.

Imports forecast, decide and actuate.
"""
