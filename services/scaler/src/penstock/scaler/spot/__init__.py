"""Spot machines: the online rule, placement over zones and types, prices, notices.

Imports actuate and forecast.
"""
