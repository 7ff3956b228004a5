"""How a service is made, whoever makes it: its own process, a cell, a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.hosting.outside import Outside
from penstock.hosting.service import Service
from penstock.service.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Assembly(Generic[S]):
    """A kind of service. Each has one, `ASSEMBLY` in its module `build`."""

    name: str
    """In logs, `--help` and `service.name`."""
    settings: type[S]
    build: Callable[[S, Outside], Service]
    """Raises BadConfig and CannotStart."""
    question: str
    """The one question that it answers, for `--help`."""
    edge: bool = False
    """Whether it has a public port."""
    owns_instances: bool = False
    """Whether other cells have to reach the one in this cell, because it alone queues for some
    instances; else any cell's will do.
    """
