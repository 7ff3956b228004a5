"""The parts of the demo after its main job, in the order in which they run; each is a module here
with TITLE and `run`.
"""

PARTS: tuple[str, ...] = (
    "inference",
    "batcher",
    "router",
    "upstream",
    "cache",
    "limiter",
    "scaler",
    "telemetry",
)
