"""The forecast of demand: experts, their residuals and weights, quantiles.

No clock and no I/O; imports no other subject of the scaler.
"""
