"""Which services share a process, and how many such processes there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from penstock.service.profiles import Profile
from penstock.service.program import CannotStart

Shape = Literal["cell", "processes"]
"""`cell`: the deciding services in one process, those beside the path in another; `processes`: each
service in its own.
"""
SHAPES: tuple[Shape, ...] = get_args(Shape)
DEFAULT_SHAPE: Shape = "cell"
"""What `up` and `demo` run unless told otherwise."""
CELL = ("edge", "router", "limiter", "cache", "batcher")
"""The services that every call passes: a process of theirs is called `cell`. They alone may run
several times behind one address, since what they share is in the stores.
"""
BESIDE = ("console", "scaler", "telemetry")
"""The services that no call waits for: a process of theirs is called `beside`."""


@dataclass(frozen=True)
class Layout:
    """The processes of a stack.

    Attributes:
        shape: which services share a process.
        workers: cells behind one address; more than one only in the shape `cell`.
        profile: of all its processes.

    Raises:
        CannotStart: several workers of another shape.
    """

    shape: Shape = DEFAULT_SHAPE
    workers: int = 1
    profile: Profile = "development"

    def __post_init__(self) -> None:
        if self.workers > 1 and self.shape != "cell":
            raise CannotStart("several workers need cells: add --shape cell or PENSTOCK_SHAPE=cell")


DEFAULT_LAYOUT = Layout()
