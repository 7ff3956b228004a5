"""The names of the benchmarks, in the order in which `all` runs them.

One line each: module `penstock.bench.<name>`.
"""

BENCHMARKS: tuple[str, ...] = (
    "batching",
    "coalescing",
    "hop",
    "limiter",
    "overhead",
    "pooling",
    "priority",
    "quantization",
    "reading",
    "routing",
    "semantic-cache",
    "scaling",
    "serving",
    "spot",
    "tokens",
    "telemetry",
)
