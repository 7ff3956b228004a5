"""The names of the benchmarks, in the order in which `all` runs them.

`penstock.bench.<name>.benchmark` is the module of each, with `_` for `-`.
"""

BENCHMARKS: tuple[str, ...] = (
    "agent-replay",
    "batching",
    "coalescing",
    "documented-calls",
    "edge",
    "faults",
    "fault-suite",
    "fresh",
    "gpu",
    "hop",
    "limiter",
    "overhead",
    "pooling",
    "priority",
    "quantization",
    "reading",
    "routing",
    "runs",
    "semantic-cache",
    "scaling",
    "security",
    "serving",
    "spot",
    "standards",
    "tokens",
    "tool-pruning",
    "telemetry",
    "wires",
    "index",
)
