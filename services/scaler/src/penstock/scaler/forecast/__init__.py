"""What demand will be: experts, their residuals, quantiles.

No clock, no I/O; imports nothing of the other subjects.
"""
