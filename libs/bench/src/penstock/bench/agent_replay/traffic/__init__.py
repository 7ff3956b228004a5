"""What is asked: recorded runs, volatile heads, closed answers, arrivals.

Imports no other part of the replay.
"""
