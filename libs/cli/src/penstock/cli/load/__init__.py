"""Open-loop load: arrivals on a schedule, latencies from the time at which a call was due.

A closed loop, in which each caller waits for its answer before it asks again, stops asking while
the system is slow and so leaves out the calls that would have waited (coordinated omission). Here
calls are due at times fixed beforehand, are sent then whether or not earlier ones were answered,
and their latency counts from the time at which they were due.
"""
