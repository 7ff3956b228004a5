"""What holds for each kind of task, one module a kind; estimates of size, keys of reusable answers.

A kind says how its tasks are validated, estimated, split and merged, whether they may be computed
twice, what of theirs may be kept, and how they are named in telemetry. `kinds.py` lists them. Only
this library compares a kind with a name.
"""
