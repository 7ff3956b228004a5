"""The names of the benchmarks, in the order in which `all` runs them.

`penstock.bench.<name>.benchmark` is the module of each, with `_` for `-`.
"""

from __future__ import annotations

from collections.abc import Iterator

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

MATRICES = ("overhead",)
"""Benchmarks with a longer run beside them, `penstock.bench.<name>.matrix.benchmark`."""


def page_of(name: str, *, matrix: bool = False) -> str:
    """The name of the page of a benchmark, or of the longer run beside it."""
    return f"{name}-matrix" if matrix else name


def command_of(page: str) -> str:
    """The command that writes a page."""
    for name in MATRICES:
        if page == page_of(name, matrix=True):
            return f"python -m penstock.bench {name} --matrix"
    return f"python -m penstock.bench {page}"


def page_names() -> Iterator[str]:
    """The pages of all benchmarks, in their order, without the index."""
    for name in BENCHMARKS:
        if name != "index":
            yield page_of(name)
        if name in MATRICES:
            yield page_of(name, matrix=True)
