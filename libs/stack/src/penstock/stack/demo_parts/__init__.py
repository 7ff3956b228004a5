"""The demo after its 400 requests: one module a service, each with a TITLE and a `run`."""

PARTS: tuple[str, ...] = (
    "chat",
    "inference",
    "batcher",
    "router",
    "upstream",
    "cache",
    "limiter",
    "scaler",
    "telemetry",
)
"""In the order of running."""
