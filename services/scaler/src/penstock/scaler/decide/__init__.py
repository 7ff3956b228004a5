"""How many instances a pool should have, and what is measured for that decision.

No clock and no I/O; imports no other subject of the scaler.
"""
