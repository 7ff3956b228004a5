"""A value that is replaced when the configuration is read again, shared by all who read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Current(Generic[T]):
    """Holds the value in force. Readers read it each time and keep no copy."""

    value: T
