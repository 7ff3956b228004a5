"""Spot machines: where to run them, what is learned of prices and losses, termination notices.

An *offering* is one instance type in one availability zone, which has a price and capacity of its
own on the spot market. Imports actuate and forecast.
"""
